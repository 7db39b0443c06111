"""The index on a real GPU: both forms agree with brute force, memory is bounded, and the fallback works."""

import gc

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.faiss_gpu import GpuDevice, GpuFull, GpuLimits, gpu_build, gpu_count
from cache.faiss_index import FaissIndex
from cache.vector_index import BruteForceIndex

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not gpu_count(), reason="no CUDA device, or FAISS without GPU support (extra `gpu`)"),
]


def unit_rows(count: int, seed: int = 1) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, 384)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


@pytest.mark.parametrize("memory_bytes", [10_000 * 384 * 2, 10_000 * 500])
def test_the_gpu_agrees_with_brute_force_through_additions_and_removals(memory_bytes: int) -> None:
    rows = unit_rows(5_000)
    build = gpu_build(GpuLimits(memory_bytes=memory_bytes, gpu_from=1_000))
    index, reference = FaissIndex(large=100, huge=1_000, build=build), BruteForceIndex()
    for start in range(0, 5_000, 500):
        index.add_all("p", [str(number) for number in range(start, start + 500)], rows[start : start + 500])
        index.settle()
    for number, row in enumerate(rows):
        reference.add("p", str(number), row)
    assert index.shape_of("p") == "layered"
    for one in (index, reference):
        one.remove([str(number) for number in range(0, 5_000, 7)])
    queries = rows + 0.5 * unit_rows(5_000, seed=2)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    agreed = [
        index.search("p", query, 1)[0].entry_id == reference.search("p", query, 1)[0].entry_id
        for query in queries[:1_000]
    ]
    assert np.mean(agreed) >= 0.99


def test_memory_is_counted_bounded_and_given_back() -> None:
    device = GpuDevice(GpuLimits(memory_bytes=3_000 * 384 * 2), 384)
    rows = unit_rows(2_000).astype(np.float16)
    base = device.build(rows)
    assert device.taken_bytes == rows.nbytes
    with pytest.raises(GpuFull):
        device.build(np.concatenate([rows, rows]))
    del base
    gc.collect()
    again = device.build(rows)
    assert device.taken_bytes == rows.nbytes
    del again
    device.close()
