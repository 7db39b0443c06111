"""The seam to nearest-neighbour search inside one scope, and an exact twin in numpy."""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from core.cached import Vector


@dataclass(frozen=True, slots=True)
class Neighbour:
    """An entry near the query; `similarity` is the cosine in [-1, 1]."""

    entry_id: str
    similarity: float


class VectorIndex(Protocol):
    """Finds neighbours inside one partition, never across; a partition is a scope. Safe to call from any thread."""

    def add(self, partition: str, entry_id: str, vector: Vector) -> None:
        """Put a (d,) float32 L2-normalised vector; the same id again replaces it."""
        ...

    def remove(self, entry_ids: Sequence[str]) -> None:
        """Forget these entries; unknown ids are ignored."""
        ...

    def search(self, partition: str, vector: Vector, k: int) -> list[Neighbour]:
        """Return up to `k` neighbours of that partition, most similar first."""
        ...

    def __len__(self) -> int:
        """Return the number of vectors."""
        ...


class BruteForceIndex:
    """The reference: every vector in float32, compared one by one; partitions least recently used are dropped."""

    def __init__(self, *, max_partitions: int = 100_000) -> None:
        self._max_partitions = max_partitions
        self._partitions: OrderedDict[str, dict[str, Vector]] = OrderedDict()
        self._home: dict[str, str] = {}

    def add(self, partition: str, entry_id: str, vector: Vector) -> None:
        """Put one vector; see `VectorIndex.add`."""
        self.remove([entry_id])
        self._partitions.setdefault(partition, {})[entry_id] = vector.copy()
        self._partitions.move_to_end(partition)
        self._home[entry_id] = partition
        if len(self._partitions) > self._max_partitions:
            _, dropped = self._partitions.popitem(last=False)
            for gone in dropped:
                del self._home[gone]

    def remove(self, entry_ids: Sequence[str]) -> None:
        """Forget these entries; see `VectorIndex.remove`."""
        for entry_id in entry_ids:
            partition = self._home.pop(entry_id, None)
            if partition is None:
                continue
            del self._partitions[partition][entry_id]
            if not self._partitions[partition]:
                del self._partitions[partition]

    def search(self, partition: str, vector: Vector, k: int) -> list[Neighbour]:
        """Return the nearest; see `VectorIndex.search`."""
        rows = self._partitions.get(partition)
        if not rows or k < 1:
            return []
        self._partitions.move_to_end(partition)
        similarities = np.stack(list(rows.values())) @ vector
        order = np.argsort(-similarities, kind="stable")[:k]
        ids = list(rows)
        return [Neighbour(ids[row], float(similarities[row])) for row in order]

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self._home)
