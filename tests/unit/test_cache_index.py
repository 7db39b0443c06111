"""Where the cache's index is put, and that it says so."""

import pytest

from cache.faiss_gpu import gpu_count
from cache.faiss_index import FaissIndex
from gateway.parts.cache_index import place_index
from gateway.settings.cache_settings import GpuSettings
from tests.caching import direction


@pytest.mark.parametrize(
    ("gpu", "why"), [(None, "switched off"), (GpuSettings(device=63), "no GPU"), (GpuSettings(), "GPU")]
)
def test_without_a_usable_gpu_the_index_is_on_the_cpu_and_says_why(gpu: GpuSettings | None, why: str) -> None:
    if gpu == GpuSettings() and gpu_count():
        pytest.skip("there is a GPU")
    placed = place_index(gpu)
    assert placed.place.startswith("cpu: ")
    assert why in placed.place
    assert isinstance(placed.index, FaissIndex)
    placed.index.add("p", "a", direction("a"))
    assert placed.index.search("p", direction("a"), 1)[0].entry_id == "a"
