"""How partitions change their shape: what is built in the background, what changes meanwhile, and what fails."""

import logging
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.faiss_index import FaissIndex
from cache.faiss_partitions import DEAD_AT_ONCE, FlatPartition, IvfPartition, Partition, Rows, lists_for
from cache.vector_index import BruteForceIndex


def unit_rows(count: int, seed: int = 1) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, 384)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def named(count: int) -> list[str]:
    return [str(number) for number in range(count)]


class HeldBuild:
    """A successor that is trained only when the test says so."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, sample: Rows, size: int) -> Partition:
        self.asked.set()
        assert self.go_on.wait(20)
        return IvfPartition(384, sample, size)


def test_a_partition_takes_the_shape_of_its_size_and_goes_back() -> None:
    index, rows = FaissIndex(large=50, huge=400), unit_rows(1_000)
    shapes = []
    for start, end in ((0, 50), (50, 51), (51, 401), (401, 1_000)):
        index.add_all("p", named(1_000)[start:end], rows[start:end])
        index.settle()
        shapes.append(index.shape_of("p"))
    for start, end in ((0, 850), (850, 990)):
        index.remove(named(1_000)[start:end])
        index.settle()
        shapes.append(index.shape_of("p"))
    assert shapes == ["small", "flat", "ivf", "ivf", "flat", "small"]
    assert [one.entry_id for one in index.search("p", rows[995], 1)] == ["995"]


def test_what_changes_while_the_successor_is_built_is_in_it() -> None:
    build = HeldBuild()
    index, rows = FaissIndex(large=10, huge=100, build=build), unit_rows(130)
    index.add_all("p", named(101), rows[:101])
    assert build.asked.wait(20)
    index.remove(["3"])
    index.add("p", "120", rows[120])
    index.add("p", "5", rows[121])
    assert [one.entry_id for one in index.search("p", rows[120], 1)] == ["120"]
    assert index.shape_of("p") == "flat"
    build.go_on.set()
    index.settle()
    assert index.shape_of("p") == "ivf"
    assert len(index) == 101
    for query, expected in ((rows[120], "120"), (rows[121], "5")):
        assert index.search("p", query, 1)[0].entry_id == expected
    assert index.search("p", rows[3], 1)[0].similarity < 0.9
    assert index.search("p", rows[5], 1)[0].similarity < 0.9


def test_a_partition_dropped_while_its_successor_is_built_stays_dropped() -> None:
    build = HeldBuild()
    index, rows = FaissIndex(large=10, huge=100, build=build), unit_rows(101)
    index.add_all("p", named(101), rows)
    assert build.asked.wait(20)
    index.remove(named(101))
    index.add("p", "new", rows[0])
    build.go_on.set()
    index.settle()
    assert index.shape_of("p") == "small"
    assert [one.entry_id for one in index.search("p", rows[0], 4)] == ["new"]


def test_a_failed_build_leaves_the_old_index_and_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    def fail(sample: Rows, size: int) -> Partition:
        raise RuntimeError("no memory for the test")

    index, rows = FaissIndex(large=10, huge=100, build=fail), unit_rows(150)
    with caplog.at_level(logging.WARNING):
        index.add_all("p", named(101), rows[:101])
        index.settle()
        index.add_all("p", named(150)[101:], rows[101:])
        index.settle()
    assert [record.message for record in caplog.records] == ["index not rebuilt, the old one stays"]
    assert index.shape_of("p") == "flat"
    assert index.search("p", rows[149], 1)[0].entry_id == "149"


def test_a_doubled_inverted_file_is_trained_anew() -> None:
    sizes: list[int] = []

    def build(sample: Rows, size: int) -> Partition:
        sizes.append(size)
        return IvfPartition(384, sample, size)

    index, rows = FaissIndex(large=10, huge=100, build=build), unit_rows(420)
    for number, row in enumerate(rows):
        index.add("p", str(number), row)
        index.settle()
    assert sizes == [101, 203, 407]
    assert all(index.search("p", row, 1)[0].entry_id == str(number) for number, row in enumerate(rows))


def test_removals_of_a_flat_index_are_carried_and_then_compacted() -> None:
    partition, rows = FlatPartition(384), unit_rows(300)
    partition.add(named(300), rows)
    for number in range(DEAD_AT_ONCE + 10):
        partition.remove([str(number)])
        assert partition.search(rows[number], 4)[0].entry_id not in set(named(number + 1))
        assert len(partition.search(rows[number], 4)) == 4
    assert len(partition) == 300 - DEAD_AT_ONCE - 10
    assert np.allclose(partition.rows(["299"]), rows[299:], atol=1e-3)


def test_every_shape_finds_what_brute_force_finds_and_states_the_similarity() -> None:
    rows = unit_rows(600)
    noisy = rows + 0.6 * unit_rows(600, seed=2)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    reference, index = BruteForceIndex(), FaissIndex(large=100, huge=200)
    for partition, count in (("small", 60), ("flat", 150), ("ivf", 600)):
        ids = [f"{partition}-{number}" for number in range(count)]
        index.add_all(partition, ids, rows[:count])
        for entry_id, row in zip(ids, rows, strict=False):
            reference.add(partition, entry_id, row)
        index.settle()
        assert index.shape_of(partition) == partition
        for query in noisy[:50]:
            (expected,), (found,) = reference.search(partition, query, 1), index.search(partition, query, 1)
            assert found.entry_id == expected.entry_id
            assert found.similarity == pytest.approx(expected.similarity, abs=1e-3)


def test_contents_are_everything_that_was_put() -> None:
    index, rows = FaissIndex(large=10, huge=50), unit_rows(80)
    index.add_all("p", named(70), rows[:70])
    index.add_all("q", ["q1"], rows[70:71])
    index.settle()
    found = {
        entry_id: (name, row) for name, ids, part in index.contents() for entry_id, row in zip(ids, part, strict=True)
    }
    assert set(found) == {*named(70), "q1"}
    assert found["q1"][0] == "q"
    assert np.allclose(found["69"][1], rows[69], atol=5e-3)
    assert "69" in index
    assert "gone" not in index


def test_an_array_row_is_used_again_after_removal() -> None:
    index, rows = FaissIndex(), unit_rows(300)
    for number in range(2_000):
        index.add("p", str(number), rows[number % 300])
        index.remove([str(number - 200)])
    assert len(index) == 200
    assert index.search("p", rows[1_999 % 300], 1)[0].entry_id == "1999"


@pytest.mark.parametrize(("size", "lists"), [(4, 1), (100, 16), (20_000, 512), (100_000, 1_024), (10**6, 2_048)])
def test_the_number_of_lists_follows_the_size(size: int, lists: int) -> None:
    assert lists_for(size) == lists


def test_a_closed_index_starts_no_work_and_still_answers() -> None:
    index, rows = FaissIndex(large=10, huge=20), unit_rows(60)
    index.close()
    index.add_all("p", named(60), rows)
    assert index.shape_of("p") == "flat"
    assert index.search("p", rows[59], 1)[0].entry_id == "59"
