"""A partition over an index that can neither remove nor grow in place, such as one on a GPU.

Vectors live in a base that is built once, or in a small flat index of what came since. Removed rows of the base are
tombstones: more is fetched than asked for, and the dead are left out. When the newcomers or the tombstones are many, a
thread builds the next base beside the present one, which goes on answering, and swaps it in. When the base fails, what
it holds is not found until the fallback has built another from the copy in memory, and one warning tells so.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cache.faiss_partitions import FlatPartition, Rows, nearest_first
from cache.vector_index import Neighbour
from core.cached import Vector

log = logging.getLogger(__name__)

HalfRows = NDArray[np.float16]

NEWCOMERS = 8_192
NEWCOMER_RATIO = 0.02
DEAD_RATIO = 0.1
_MOST_FETCHED = 2_048
"""What a GPU index returns at most."""
_COMPARED = 10
"""How many of the base are compared again in float16: at a million the nearest is among ten in 999 of 1,000 cases, and
first by eight bits in 990 (benchmarks/results/cache_speed.json, frontier)."""


class Base(Protocol):
    """An index over rows 0 to n - 1 that never changes; any thread may search it."""

    def search(self, vector: Vector, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the (k,) similarities and row numbers of the nearest, nearest first; -1 where there are fewer."""
        ...


BuildBase = Callable[[HalfRows], Base]
"""Builds a base from (n, d) float16 rows, or raises."""


@dataclass(slots=True)
class _Layer:
    """A base with a copy of its rows in memory; `row_of` knows the living."""

    base: Base | None
    ids: list[str]
    rows: HalfRows
    row_of: dict[str, int] = field(default_factory=dict)

    @property
    def dead(self) -> int:
        return len(self.ids) - len(self.row_of)


class LayeredPartition:
    """A `Partition` that tends itself: base, newcomers while the next base is built, and newcomers."""

    tends_itself = True

    def __init__(self, dimension: int, build: BuildBase, fallback: BuildBase, *, newcomers: int = NEWCOMERS) -> None:
        self._dimension = dimension
        self._build = build
        self._fallback = fallback
        self._most_newcomers = newcomers
        self._layer = _Layer(None, [], np.zeros((0, dimension), dtype=np.float16))
        self._new = FlatPartition(dimension)
        self._moving = FlatPartition(dimension)
        self._gone: list[str] = []
        self._lock = threading.RLock()
        self._builder: threading.Thread | None = None

    def add(self, entry_ids: Sequence[str], rows: Rows) -> None:
        """See `Partition.add`."""
        with self._lock:
            self._new.add(entry_ids, rows)

    def remove(self, entry_ids: Sequence[str]) -> None:
        """See `Partition.remove`."""
        with self._lock:
            for entry_id in entry_ids:
                if entry_id in self._new:
                    self._new.remove([entry_id])
                    continue
                if self._layer.row_of.pop(entry_id, None) is None:
                    self._moving.remove([entry_id])
                self._gone.append(entry_id)

    def search(self, vector: Vector, k: int) -> list[Neighbour]:
        """See `Partition.search`."""
        self._tend()
        with self._lock:
            layer = self._layer
            found = [one for part in (self._new, self._moving) if len(part) for one in part.search(vector, k)]
        return nearest_first([*self._in_base(layer, vector, k), *found])[:k]

    def rows(self, entry_ids: Sequence[str]) -> Rows:
        """See `Partition.rows`."""
        with self._lock:
            return np.concatenate([self._row(entry_id) for entry_id in entry_ids])

    def ids(self) -> list[str]:
        """See `Partition.ids`."""
        with self._lock:
            return [*self._layer.row_of, *self._moving.ids(), *self._new.ids()]

    def prepare(self) -> None:
        """Build the first base now."""
        self._rebuild(self._build)

    def settle(self) -> None:
        """Wait until no base is being built."""
        while (builder := self._builder) is not None:
            builder.join()

    def __contains__(self, entry_id: str) -> bool:
        with self._lock:
            return entry_id in self._layer.row_of or entry_id in self._new or entry_id in self._moving

    def __len__(self) -> int:
        with self._lock:
            return len(self._layer.row_of) + len(self._new) + len(self._moving)

    def _in_base(self, layer: _Layer, vector: Vector, k: int) -> list[Neighbour]:
        """Search the base, fetching more while tombstones crowd out the living, and compare what came up exactly."""
        wanted = min(k, len(layer.row_of))
        fetched = min(_MOST_FETCHED, len(layer.ids), max(_COMPARED, 2 * k if layer.dead else k))
        while layer.base is not None and wanted:
            try:
                _, numbers = layer.base.search(vector, fetched)
            except Exception as problem:
                self._failed(layer, problem)
                return []
            alive = [
                number for number in numbers.tolist() if number >= 0 and layer.row_of.get(layer.ids[number]) == number
            ]
            if len(alive) >= wanted or fetched >= min(_MOST_FETCHED, len(layer.ids)):
                similarities = (layer.rows[alive].astype(np.float32) @ vector).tolist()
                found = (Neighbour(layer.ids[at], value) for at, value in zip(alive, similarities, strict=True))
                return nearest_first(found)[:k]
            fetched = min(_MOST_FETCHED, len(layer.ids), 4 * fetched)
        return []

    def _row(self, entry_id: str) -> Rows:
        at = self._layer.row_of.get(entry_id)
        if at is not None:
            return self._layer.rows[at : at + 1].astype(np.float32)
        return (self._new if entry_id in self._new else self._moving).rows([entry_id])

    def _tend(self) -> None:
        """Have the next base built when it is due."""
        with self._lock:
            layer = self._layer
            is_grown = len(self._new) > max(self._most_newcomers, NEWCOMER_RATIO * len(layer.ids))
            if is_grown or layer.dead > DEAD_RATIO * max(1, len(layer.ids)):
                self._start(self._build)

    def _failed(self, layer: _Layer, problem: Exception) -> None:
        with self._lock:
            if layer is not self._layer or layer.base is None:
                return
            layer.base = None
            self._build = self._fallback
            log.warning("index failed, another is built on the CPU", extra={"error": str(problem)})
            self._start(self._fallback)

    def _start(self, build: BuildBase) -> None:
        if self._builder is None:
            self._builder = threading.Thread(target=self._run, args=(build,), name="headgate-base", daemon=True)
            self._builder.start()

    def _run(self, build: BuildBase) -> None:
        try:
            self._rebuild(build)
        except Exception as problem:
            log.warning("index not rebuilt, the old one stays", extra={"error": str(problem)})
        finally:
            with self._lock:
                self._builder = None

    def _rebuild(self, build: BuildBase) -> None:
        ids, rows = self._frozen()
        try:
            base = build(rows) if ids else None
        except Exception as problem:
            if build is self._fallback:
                raise
            log.warning("index not built, falling back to the CPU", extra={"error": str(problem)})
            self._build = self._fallback
            base = self._fallback(rows)
        living = {entry_id: at for at, entry_id in enumerate(ids)}
        with self._lock:
            for entry_id in self._gone:
                living.pop(entry_id, None)
            self._layer = _Layer(base, ids, rows, living)
            self._moving = FlatPartition(self._dimension)

    def _frozen(self) -> tuple[list[str], HalfRows]:
        """Set newcomers aside and return all vectors; what is removed from now on is missing in the old layers."""
        with self._lock:
            kept, fresh = self._layer.row_of.copy(), self._new.ids()
            waiting = self._moving.ids()  # left behind by a build that failed
            if waiting:
                fresh = [*waiting, *fresh]
                self._new.add(waiting, self._moving.rows(waiting))
            self._moving, self._new = self._new, FlatPartition(self._dimension)
            self._gone = []
            newcomers = self._moving.rows(fresh).astype(np.float16) if fresh else self._layer.rows[:0]
            old_rows = self._layer.rows
        rows = np.concatenate([old_rows[np.fromiter(kept.values(), dtype=np.int64, count=len(kept))], newcomers])
        return [*kept, *fresh], rows
