"""One suite over every vector index."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from cache.faiss_gpu import IvfBase
from cache.faiss_index import FaissIndex
from cache.layered_partition import LayeredPartition
from cache.vector_index import BruteForceIndex, VectorIndex
from core.cached import Vector
from tests.caching import direction

MakeIndex = Callable[[int], VectorIndex]


class Settled:
    """An index whose background work is done after every change."""

    def __init__(self, index: FaissIndex) -> None:
        self._index = index
        self.search = index.search

    def add(self, partition: str, entry_id: str, vector: Vector) -> None:
        self._index.add(partition, entry_id, vector)
        self._index.settle()

    def remove(self, entry_ids: Sequence[str]) -> None:
        self._index.remove(entry_ids)
        self._index.settle()

    def __len__(self) -> int:
        return len(self._index)


@pytest.fixture(params=["brute force", "faiss", "faiss, large from 3", "faiss, huge from 3", "layers"])
def make(request: pytest.FixtureRequest) -> MakeIndex:
    makers: dict[str, MakeIndex] = {
        "brute force": lambda partitions: BruteForceIndex(max_partitions=partitions),
        "faiss": lambda partitions: FaissIndex(max_partitions=partitions),
        "faiss, large from 3": lambda partitions: FaissIndex(max_partitions=partitions, large=3),
        "faiss, huge from 3": lambda partitions: Settled(FaissIndex(max_partitions=partitions, large=2, huge=3)),
        "layers": lambda partitions: Settled(
            FaissIndex(max_partitions=partitions, large=2, huge=3, build=lambda sample, size: layers())
        ),
    }
    return makers[request.param]


def layers() -> LayeredPartition:
    return LayeredPartition(384, IvfBase, IvfBase, newcomers=2)


def ids(index: VectorIndex, partition: str, text: str, k: int = 4) -> list[str]:
    return [one.entry_id for one in index.search(partition, direction(text), k)]


def test_the_most_similar_comes_first_with_its_cosine(make: MakeIndex) -> None:
    index = make(10)
    for name in ("red apple", "red pear", "blue sky", "green tea", "old oak"):
        index.add("p", name, direction(name))
    found = index.search("p", direction("red apple"), 2)
    assert [one.entry_id for one in found] == ["red apple", "red pear"]
    assert found[0].similarity == pytest.approx(1.0, abs=2e-3)
    assert found[1].similarity == pytest.approx(float(direction("red apple") @ direction("red pear")), abs=2e-3)


def test_nothing_is_found_in_another_partition(make: MakeIndex) -> None:
    index = make(10)
    index.add("p", "a", direction("a"))
    assert ids(index, "q", "a") == []


def test_the_same_id_replaces_even_across_partitions(make: MakeIndex) -> None:
    index = make(10)
    index.add("p", "x", direction("a"))
    index.add("q", "x", direction("b"))
    assert ids(index, "p", "a") == []
    assert ids(index, "q", "b") == ["x"]
    assert len(index) == 1


def test_removed_entries_are_not_found(make: MakeIndex) -> None:
    index = make(10)
    for name in "abcdefgh":
        index.add("p", name, direction(name))
    index.remove(["a", "b", "c", "d", "e", "f", "unknown"])
    assert sorted(ids(index, "p", "a")) == ["g", "h"]
    index.remove(["g", "h"])
    assert ids(index, "p", "a") == []
    assert len(index) == 0


def test_the_partition_least_recently_used_is_dropped(make: MakeIndex) -> None:
    index = make(2)
    index.add("p", "a", direction("a"))
    index.add("q", "b", direction("b"))
    assert ids(index, "p", "a") == ["a"]
    index.add("r", "c", direction("c"))
    assert ids(index, "q", "b") == []
    assert ids(index, "p", "a") == ["a"]
    assert len(index) == 2


def test_faiss_agrees_with_brute_force_through_growth_and_removal() -> None:
    random = np.random.default_rng(7)
    rows = random.standard_normal((400, 384)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    reference, index = BruteForceIndex(), FaissIndex(large=100)
    for number, row in enumerate(rows):
        for one in (reference, index):
            one.add(f"p{number % 2}", str(number), row)
    gone = [str(number) for number in random.choice(400, 330, replace=False)]
    for one in (reference, index):
        one.remove(gone)
    for query in rows[:50]:
        for partition in ("p0", "p1"):
            expected = [one.entry_id for one in reference.search(partition, query, 1)]
            assert [one.entry_id for one in index.search(partition, query, 1)] == expected


def test_a_vector_of_the_wrong_size_is_refused() -> None:
    with pytest.raises(ValueError, match="dimension 384"):
        FaissIndex().add("p", "a", np.zeros(8, dtype=np.float32))
