"""Choose where the cache's index lives: on the CPU, and its largest partitions on a GPU where there is one."""

import logging
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from cache.faiss_index import FaissIndex
from core.errors import ConfigurationError
from gateway.settings.cache_settings import GpuSettings

logger = logging.getLogger("headgate.cache_index")


@dataclass(frozen=True, slots=True)
class PlacedIndex:
    """The index, and in words where it lies and why."""

    index: FaissIndex
    place: str


def refuse_two_faiss() -> None:
    """Refuse to start with both FAISS distributions, which overwrite each other's module.

    Raises:
        ConfigurationError: both are installed.
    """
    if _installed("faiss-cpu") and _installed("faiss-gpu"):
        raise ConfigurationError(
            "environment", "faiss", "faiss-cpu and faiss-gpu are both installed", "uninstall one of them"
        )


def place_index(gpu: GpuSettings | None) -> PlacedIndex:
    """Return the index on the GPU that `gpu` describes, or on the CPU, saying why."""
    if gpu is None:
        return PlacedIndex(FaissIndex(), "cpu: the GPU is switched off")
    if _installed("faiss-cpu"):  # asking FAISS itself would load it, which an empty index does not need yet
        return PlacedIndex(FaissIndex(), "cpu: this FAISS has no GPU support")
    from cache.faiss_gpu import GpuLimits, gpu_build, gpu_count

    count = gpu_count()
    if count <= gpu.device:
        seen = "this FAISS has no GPU support or sees no device" if count == 0 else f"{count} devices are visible"
        return PlacedIndex(FaissIndex(), f"cpu: no GPU {gpu.device}, {seen}")
    build = gpu_build(GpuLimits(gpu.device, gpu.memory_bytes, gpu.temporary_bytes))
    if build is None:
        return PlacedIndex(FaissIndex(), f"cpu: GPU {gpu.device} cannot be used, see the log")
    place = f"gpu {gpu.device}: partitions that fit into {gpu.memory_bytes >> 20} MiB, others on the CPU"
    logger.info("the cache's index uses a GPU", extra={"device": gpu.device, "memory_bytes": gpu.memory_bytes})
    return PlacedIndex(FaissIndex(build=build), place)


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
