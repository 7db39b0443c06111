"""The largest partitions on a GPU up to a memory limit, and on the CPU where that fails; needs the extra `gpu`.

GPU indexes of FAISS cannot remove, and one `StandardGpuResources` serves one thread, so a GPU index is the base of a
`LayeredPartition`, and one thread per device owns the resources and batches searches. A partition goes to a flat
float16 index where that fits, otherwise to an inverted file of eight bits per dimension, otherwise to the CPU. While a
base is rebuilt, both count against the limit. Not yet run on a GPU; `tests/gpu` does so where there is one.
"""

import logging
import threading
import weakref
from dataclasses import dataclass
from functools import partial
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.faiss_index import Build
from cache.faiss_partitions import PROBED_LISTS, IvfPartition, Partition, Rows, lists_for, sample_size
from cache.layered_partition import Base, HalfRows, LayeredPartition
from cache.search_owner import SearchOwner
from core.cached import Vector

log = logging.getLogger(__name__)

GPU_FROM = 100_000
_CHUNK = 65_536


@dataclass(frozen=True, slots=True)
class GpuLimits:
    """What the cache may take of one device beside whatever else runs there."""

    device: int = 0
    memory_bytes: int = 4 * 2**30
    temporary_bytes: int = 128 * 2**20
    gpu_from: int = GPU_FROM


class GpuFull(Exception):
    """The index would exceed the memory limit."""


def gpu_count() -> int:
    """Return how many devices this build of FAISS can use; 0 for the CPU build."""
    return int(faiss.get_num_gpus()) if hasattr(faiss, "StandardGpuResources") else 0


def gpu_build(limits: GpuLimits, dimension: int = 384) -> Build | None:
    """Return what `FaissIndex` builds huge partitions with, or None and one line in the log where no GPU is usable."""
    if gpu_count() <= limits.device:
        log.info("no GPU for the cache's index, it stays on the CPU", extra={"device": limits.device})
        return None
    try:
        device = GpuDevice(limits, dimension)
    except Exception as problem:
        log.warning("the GPU cannot be used, the cache's index stays on the CPU", extra={"error": str(problem)})
        return None

    def build(sample: Rows, size: int) -> Partition:
        if size < limits.gpu_from:
            return IvfPartition(dimension, sample, size)
        return LayeredPartition(dimension, device.build, IvfBase)

    return build


class GpuDevice:
    """One device: its resources in a thread of their own, and the memory that indexes take of it.

    Raises:
        RuntimeError: the device cannot be opened.
    """

    def __init__(self, limits: GpuLimits, dimension: int) -> None:
        self._limits = limits
        self._dimension = dimension
        self._taken_bytes = 0
        self._lock = threading.Lock()
        self._owner: SearchOwner[Any] = SearchOwner(self._open)

    @property
    def taken_bytes(self) -> int:
        """Return the memory of all indexes at present, without the temporary memory."""
        return self._taken_bytes

    def build(self, rows: HalfRows) -> Base:
        """Build a base of (n, d) float16 rows in the best form that fits.

        Raises:
            GpuFull: no form fits.
            RuntimeError: the device refused.
        """
        flat_bytes = rows.size * 2
        ivf_bytes = len(rows) * (self._dimension + 8) + 4 * self._dimension * lists_for(len(rows))
        is_flat = self._takes(flat_bytes)
        if not is_flat and not self._takes(ivf_bytes):
            raise GpuFull(f"{len(rows)} vectors exceed the memory limit of the GPU")
        size_bytes = flat_bytes if is_flat else ivf_bytes
        try:
            index = self._owner.run(lambda resources: self._filled(resources, rows, is_flat=is_flat))
        except BaseException:
            self._release(size_bytes)
            raise
        base = _GpuBase(self._owner, index)
        weakref.finalize(base, self._discard, index, size_bytes)
        return base

    def close(self) -> None:
        """End the thread that owns the device."""
        self._owner.close()

    def _open(self) -> Any:
        resources = faiss.StandardGpuResources()  # type: ignore[attr-defined,unused-ignore]
        resources.setTempMemory(self._limits.temporary_bytes)
        return resources

    def _filled(self, resources: Any, rows: HalfRows, *, is_flat: bool) -> Any:
        index = self._flat(resources) if is_flat else self._ivf(resources, rows)
        for start in range(0, len(rows), _CHUNK):
            index.add(np.ascontiguousarray(rows[start : start + _CHUNK], dtype=np.float32))
        return index

    def _flat(self, resources: Any) -> Any:
        config = faiss.GpuIndexFlatConfig()  # type: ignore[attr-defined,unused-ignore]
        config.device, config.useFloat16 = self._limits.device, True
        return faiss.GpuIndexFlatIP(resources, self._dimension, config)  # type: ignore[attr-defined,unused-ignore]

    def _ivf(self, resources: Any, rows: HalfRows) -> Any:
        config = faiss.GpuIndexIVFScalarQuantizerConfig()  # type: ignore[attr-defined,unused-ignore]
        config.device = self._limits.device
        index: Any = faiss.GpuIndexIVFScalarQuantizer(  # type: ignore[attr-defined,unused-ignore]
            resources, self._dimension, lists_for(len(rows)), faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT, True, config,
        )  # fmt: skip
        index.train(training_rows(rows))
        index.nprobe = PROBED_LISTS
        return index

    def _takes(self, size_bytes: int) -> bool:
        with self._lock:
            fits = self._taken_bytes + size_bytes <= self._limits.memory_bytes
            self._taken_bytes += size_bytes if fits else 0
            return fits

    def _release(self, size_bytes: int) -> None:
        with self._lock:
            self._taken_bytes -= size_bytes

    def _discard(self, index: Any, size_bytes: int) -> None:
        """Free an index in the owner's thread, where the last reference to it ends."""
        self._owner.forget(partial(self._dropped, index, size_bytes))

    def _dropped(self, index: Any, size_bytes: int, resources: Any) -> None:
        self._release(size_bytes)


class _GpuBase:
    def __init__(self, owner: SearchOwner[Any], index: Any) -> None:
        self._owner = owner
        self._index = index

    def search(self, vector: Vector, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._owner.search(self._index, vector, k)


class IvfBase:
    """The fallback: an inverted file on the CPU; FAISS lets several threads search an index that does not change."""

    def __init__(self, rows: HalfRows) -> None:
        size, dimension = rows.shape
        self._index: Any = faiss.IndexIVFScalarQuantizer(
            faiss.IndexFlatIP(dimension), dimension, lists_for(size), faiss.ScalarQuantizer.QT_8bit,
            faiss.METRIC_INNER_PRODUCT, True,
        )  # fmt: skip
        self._index.cp.min_points_per_centroid = 1
        self._index.train(training_rows(rows))
        for start in range(0, size, _CHUNK):
            self._index.add(np.ascontiguousarray(rows[start : start + _CHUNK], dtype=np.float32))
        self._index.nprobe = PROBED_LISTS

    def search(self, vector: Vector, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """See `Base.search`."""
        similarities, numbers = self._index.search(np.ascontiguousarray(vector[None, :]), k)
        return similarities[0], numbers[0]


def training_rows(rows: HalfRows) -> Rows:
    """Return the float32 rows that an inverted file over `rows` is trained on."""
    chosen = np.random.default_rng(len(rows)).choice(len(rows), sample_size(len(rows)), replace=False)
    return np.ascontiguousarray(rows[chosen], dtype=np.float32)
