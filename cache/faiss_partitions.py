"""The three shapes of a partition on the CPU: rows of a shared array, a flat FAISS index, and an inverted file.

`SmallPartition` costs nothing beyond its rows and is compared exactly with numpy. `FlatPartition` compares exactly too,
in FAISS and float16. `IvfPartition` looks into some of its lists only, in float16 too.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.vector_index import Neighbour
from core.cached import Vector

Rows = NDArray[np.float32]

DEAD_AT_ONCE = 64
"""How many removed rows a flat index carries along before it is compacted: one pass over it whatever their number."""
PROBED_LISTS = 32
_POINTS_PER_LIST = 40
_TRAINING_ROUNDS = 6


class Partition(Protocol):
    """The vectors of one scope; safe for several threads only where it tends itself."""

    @property
    def tends_itself(self) -> bool:
        """Whether it grows without being rebuilt by its owner, and may be called by several threads at once."""
        ...

    def add(self, entry_ids: Sequence[str], rows: Rows) -> None:
        """Put (n, d) float32 L2-normalised rows under ids that are not there yet."""
        ...

    def remove(self, entry_ids: Sequence[str]) -> None:
        """Forget ids, all of which are there."""
        ...

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        """Return up to `k` neighbours, most similar first."""
        ...

    def rows(self, entry_ids: Sequence[str]) -> Rows:
        """Return the rows of ids that are there, as precisely as they are kept."""
        ...

    def ids(self) -> list[str]:
        """Return all ids."""
        ...

    def prepare(self) -> None:
        """Do what makes searching fast; called once, when the first vectors are in and before any search."""
        ...

    def __contains__(self, entry_id: str) -> bool:
        """Whether the id is there."""
        ...

    def __len__(self) -> int:
        """Return the number of vectors."""
        ...


class Arena:
    """One float16 array whose rows are handed out and taken back."""

    def __init__(self, dimension: int) -> None:
        self._rows: NDArray[np.float16] = np.zeros((256, dimension), dtype=np.float16)
        self._free = list(range(255, -1, -1))

    def put(self, vector: Vector) -> int:
        """Keep a vector and return its row number; the array doubles when it is full."""
        if not self._free:
            used = len(self._rows)
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
            self._free = list(range(2 * used - 1, used - 1, -1))
        row = self._free.pop()
        self._rows[row] = vector
        return row

    def release(self, row: int) -> None:
        """Take a row back."""
        self._free.append(row)

    def take(self, rows: Sequence[int]) -> Rows:
        """Return (n, d) float32 copies of these rows."""
        taken: Rows = self._rows[np.asarray(rows, dtype=np.int64)].astype(np.float32)
        return taken


class SmallPartition:
    """Row numbers into the shared array."""

    tends_itself = False

    def __init__(self, arena: Arena) -> None:
        self._arena = arena
        self._row_of: dict[str, int] = {}

    def add(self, entry_ids: Sequence[str], rows: Rows) -> None:
        """See `Partition.add`."""
        for entry_id, row in zip(entry_ids, rows, strict=True):
            self._row_of[entry_id] = self._arena.put(row)

    def remove(self, entry_ids: Sequence[str]) -> None:
        """See `Partition.remove`."""
        for entry_id in entry_ids:
            self._arena.release(self._row_of.pop(entry_id))

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        """See `Partition.search`."""
        similarities = self._arena.take(list(self._row_of.values())) @ vector
        best = np.argpartition(-similarities, k)[:k] if k < len(similarities) else np.arange(len(similarities))
        ids = list(self._row_of)
        return nearest_first(Neighbour(ids[at], float(similarities[at])) for at in best)

    def rows(self, entry_ids: Sequence[str]) -> Rows:
        """See `Partition.rows`."""
        return self._arena.take([self._row_of[entry_id] for entry_id in entry_ids])

    def ids(self) -> list[str]:
        """See `Partition.ids`."""
        return list(self._row_of)

    def prepare(self) -> None:
        """See `Partition.prepare`; nothing is left to do."""

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._row_of

    def __len__(self) -> int:
        return len(self._row_of)


class _Numbered:
    """Ids as the running numbers that FAISS wants."""

    tends_itself = False

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}
        self._id_of: dict[int, str] = {}
        self._next = 0

    def ids(self) -> list[str]:
        """See `Partition.ids`."""
        return list(self._number_of)

    def prepare(self) -> None:
        """See `Partition.prepare`; nothing is left to do."""

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._number_of

    def __len__(self) -> int:
        return len(self._number_of)

    def _assign(self, entry_ids: Sequence[str]) -> NDArray[np.int64]:
        numbers = np.arange(self._next, self._next + len(entry_ids), dtype=np.int64)
        self._next += len(entry_ids)
        for entry_id, number in zip(entry_ids, numbers.tolist(), strict=True):
            self._number_of[entry_id] = number
            self._id_of[number] = entry_id
        return numbers

    def _withdraw(self, entry_ids: Sequence[str]) -> list[int]:
        numbers = [self._number_of.pop(entry_id) for entry_id in entry_ids]
        for number in numbers:
            del self._id_of[number]
        return numbers

    def _numbers(self, entry_ids: Sequence[str]) -> NDArray[np.int64]:
        return np.array([self._number_of[entry_id] for entry_id in entry_ids], dtype=np.int64)

    def _neighbours(self, found: tuple[Any, Any], k: int) -> list[Neighbour]:
        similarities, numbers = found
        pairs: Iterator[tuple[int, float]] = zip(numbers[0].tolist(), similarities[0].tolist(), strict=True)
        alive = (Neighbour(self._id_of[number], value) for number, value in pairs if number in self._id_of)
        return nearest_first(alive)[:k]


def load_faiss() -> Any:
    """Return FAISS on one thread, loading it when first asked, so that a gateway starts without it."""
    import faiss

    faiss.omp_set_num_threads(1)  # OpenMP on busy cores was disastrous (measured)
    return faiss


class FlatPartition(_Numbered):
    """A flat float16 FAISS index; removed rows stay as tombstones, searched around, until they are many."""

    def __init__(self, dimension: int) -> None:
        super().__init__()
        faiss = load_faiss()
        flat = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
        self._index: Any = faiss.IndexIDMap2(flat)
        self._dead: list[int] = []

    def add(self, entry_ids: Sequence[str], rows: Rows) -> None:
        """See `Partition.add`."""
        self._index.add_with_ids(np.ascontiguousarray(rows), self._assign(entry_ids))

    def remove(self, entry_ids: Sequence[str]) -> None:
        """See `Partition.remove`."""
        self._dead += self._withdraw(entry_ids)
        if len(self._dead) >= DEAD_AT_ONCE:
            self._index.remove_ids(np.array(self._dead, dtype=np.int64))
            self._dead.clear()

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        """See `Partition.search`."""
        wanted = min(k, len(self)) + len(self._dead)
        return self._neighbours(self._index.search(vector[None, :], wanted), k)

    def rows(self, entry_ids: Sequence[str]) -> Rows:
        """See `Partition.rows`."""
        rows: Rows = self._index.reconstruct_batch(self._numbers(entry_ids))
        return rows


class IvfPartition(_Numbered):
    """An inverted file in float16, trained on `sample` for some `size` vectors.

    Removal goes through the direct map, so that it costs the same in any size. Float16 costs 384 bytes an entry more
    than eight bits and is searched nearly as fast without residuals; eight bits put the nearest of a million first in
    some 99 % of cases however many lists were looked into, since neighbours less than .001 apart change places
    (benchmarks/results/cache_speed.json).
    """

    def __init__(self, dimension: int, sample: Rows, size: int) -> None:
        super().__init__()
        self.trained_for = size
        faiss = load_faiss()
        self._index: Any = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dimension), dimension, lists_for(size), faiss.ScalarQuantizer.QT_fp16,
            faiss.METRIC_INNER_PRODUCT, False,
        )  # fmt: skip
        self._index.cp.niter = _TRAINING_ROUNDS
        self._index.cp.min_points_per_centroid = 1  # small samples are meant; the warning would go to stdout
        self._index.train(np.ascontiguousarray(sample))
        self._index.set_direct_map_type(faiss.DirectMap.Hashtable)
        self._index.nprobe = PROBED_LISTS

    def add(self, entry_ids: Sequence[str], rows: Rows) -> None:
        """See `Partition.add`."""
        self._index.add_with_ids(np.ascontiguousarray(rows), self._assign(entry_ids))

    def remove(self, entry_ids: Sequence[str]) -> None:
        """See `Partition.remove`."""
        import faiss

        numbers = np.array(self._withdraw(entry_ids), dtype=np.int64)
        self._index.remove_ids(faiss.IDSelectorArray(len(numbers), faiss.swig_ptr(numbers)))

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        """See `Partition.search`."""
        return self._neighbours(self._index.search(vector[None, :], min(k, len(self))), k)

    def rows(self, entry_ids: Sequence[str]) -> Rows:
        """See `Partition.rows`."""
        rows: Rows = self._index.reconstruct_batch(self._numbers(entry_ids))
        return rows


def lists_for(size: int) -> int:
    """Return how many lists an inverted file of this size has: a power of two near 4 √n, 2,048 at most."""
    return min(2_048, 1 << round(math.log2(4 * math.sqrt(size))), 1 << int(math.log2(max(1.0, size / 4))))


def sample_size(size: int) -> int:
    """Return how many rows an inverted file of this size is trained on."""
    return min(size, _POINTS_PER_LIST * lists_for(size))


def nearest_first(neighbours: Iterable[Neighbour]) -> list[Neighbour]:
    """Sort by falling similarity."""
    return sorted(neighbours, key=lambda one: -one.similarity)
