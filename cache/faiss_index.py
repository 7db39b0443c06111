"""Nearest neighbours by FAISS on the CPU: many small partitions in one array, large ones in an index of their own.

Scopes are many and mostly tiny, so partitions below `LARGE` entries are row numbers into one shared float16 array and
are compared exactly with numpy. A partition that grows beyond gets a flat float16 FAISS index with removal by id, and
returns to the array when it shrinks to half of that.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.vector_index import Neighbour
from core.cached import Vector

LARGE = 1_000


class _Arena:
    """One float16 array whose rows are handed out and taken back."""

    def __init__(self, dimension: int) -> None:
        self._rows: NDArray[np.float16] = np.zeros((256, dimension), dtype=np.float16)
        self._free = list(range(255, -1, -1))

    def put(self, vector: Vector) -> int:
        if not self._free:
            used = len(self._rows)
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._free = list(range(2 * used - 1, used - 1, -1))
        row = self._free.pop()
        self._rows[row] = vector
        return row

    def release(self, row: int) -> None:
        self._free.append(row)

    def take(self, rows: Sequence[int]) -> NDArray[np.float32]:
        taken: NDArray[np.float32] = self._rows[np.asarray(rows)].astype(np.float32)
        return taken


class _Small:
    """A partition as row numbers into the shared array."""

    def __init__(self, arena: _Arena) -> None:
        self._arena = arena
        self._row_of: dict[str, int] = {}

    def add(self, entry_id: str, vector: Vector) -> None:
        self._row_of[entry_id] = self._arena.put(vector)

    def remove(self, entry_id: str) -> None:
        self._arena.release(self._row_of.pop(entry_id))

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        similarities = self._arena.take(list(self._row_of.values())) @ vector
        best = np.argpartition(-similarities, k)[:k] if k < len(similarities) else np.arange(len(similarities))
        ids = list(self._row_of)
        return _sorted(Neighbour(ids[at], float(similarities[at])) for at in best)

    def contents(self) -> tuple[list[str], NDArray[np.float32]]:
        return list(self._row_of), self._arena.take(list(self._row_of.values()))

    def __len__(self) -> int:
        return len(self._row_of)


class _Large:
    """A partition with a flat float16 FAISS index of its own."""

    def __init__(self, dimension: int) -> None:
        flat = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._index: Any = faiss.IndexIDMap2(flat)
        self._number_of: dict[str, int] = {}
        self._id_of: dict[int, str] = {}
        self._next = 0

    def add(self, entry_id: str, vector: Vector) -> None:
        self.add_all([entry_id], vector[None, :])

    def add_all(self, entry_ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        numbers = np.arange(self._next, self._next + len(entry_ids), dtype=np.int64)
        self._next += len(entry_ids)
        self._index.add_with_ids(np.ascontiguousarray(vectors), numbers)
        for entry_id, number in zip(entry_ids, numbers.tolist(), strict=True):
            self._number_of[entry_id] = number
            self._id_of[number] = entry_id

    def remove(self, entry_id: str) -> None:
        number = self._number_of.pop(entry_id)
        del self._id_of[number]
        self._index.remove_ids(np.array([number], dtype=np.int64))

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        similarities, numbers = self._index.search(vector[None, :], min(k, len(self)))
        pairs = zip(numbers[0].tolist(), similarities[0].tolist(), strict=True)
        return _sorted(Neighbour(self._id_of[number], value) for number, value in pairs if number in self._id_of)

    def contents(self) -> tuple[list[str], NDArray[np.float32]]:
        ids = list(self._number_of)
        rows = self._index.reconstruct_batch(np.array([self._number_of[one] for one in ids], dtype=np.int64))
        return ids, rows

    def __len__(self) -> int:
        return len(self._number_of)


class FaissIndex:
    """A `VectorIndex` bounded in partitions; when there are too many, the least recently used is dropped."""

    def __init__(self, dimension: int = 384, *, max_partitions: int = 100_000, large: int = LARGE) -> None:
        faiss.omp_set_num_threads(1)  # OpenMP on busy cores was disastrous (measured)
        self._dimension = dimension
        self._max_partitions = max_partitions
        self._large = large
        self._arena = _Arena(dimension)
        self._partitions: OrderedDict[str, _Small | _Large] = OrderedDict()
        self._home: dict[str, str] = {}
        self._lock = threading.Lock()

    def add(self, partition: str, entry_id: str, vector: Vector) -> None:
        """Put one vector; see `VectorIndex.add`."""
        if vector.shape != (self._dimension,):
            raise ValueError(f"a vector of shape {vector.shape} does not fit an index of dimension {self._dimension}")
        with self._lock:
            self._forget(entry_id)
            place = self._partitions.get(partition)
            if place is None:
                place = self._partitions[partition] = _Small(self._arena)
            self._partitions.move_to_end(partition)
            place.add(entry_id, vector)
            self._home[entry_id] = partition
            if isinstance(place, _Small) and len(place) > self._large:
                self._partitions[partition] = self._grown(place)
            if len(self._partitions) > self._max_partitions:
                self._drop_oldest()

    def remove(self, entry_ids: Sequence[str]) -> None:
        """Forget these entries; see `VectorIndex.remove`."""
        with self._lock:
            for entry_id in entry_ids:
                self._forget(entry_id)

    def search(self, partition: str, vector: Vector, k: int) -> list[Neighbour]:
        """Return the nearest; see `VectorIndex.search`."""
        with self._lock:
            place = self._partitions.get(partition)
            if place is None or k < 1:
                return []
            self._partitions.move_to_end(partition)
            return place.search(vector, k)

    def __len__(self) -> int:
        """Return the number of vectors."""
        return len(self._home)

    def _forget(self, entry_id: str) -> None:
        partition = self._home.pop(entry_id, None)
        if partition is None:
            return
        place = self._partitions[partition]
        place.remove(entry_id)
        if not len(place):
            del self._partitions[partition]
        elif isinstance(place, _Large) and len(place) < self._large // 2:
            self._partitions[partition] = self._shrunk(place)

    def _grown(self, small: _Small) -> _Large:
        ids, rows = small.contents()
        large = _Large(self._dimension)
        large.add_all(ids, rows)
        for entry_id in ids:
            small.remove(entry_id)
        return large

    def _shrunk(self, large: _Large) -> _Small:
        small = _Small(self._arena)
        ids, rows = large.contents()
        for entry_id, row in zip(ids, rows, strict=True):
            small.add(entry_id, row)
        return small

    def _drop_oldest(self) -> None:
        _, place = self._partitions.popitem(last=False)
        ids, _ = place.contents()
        for entry_id in ids:
            del self._home[entry_id]
            place.remove(entry_id)


def _sorted(neighbours: Any) -> list[Neighbour]:
    return sorted(neighbours, key=lambda one: -one.similarity)
