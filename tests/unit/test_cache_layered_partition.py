"""Tombstones, newcomers, the double-buffered rebuild and the fallback, over bases on the CPU."""

import logging
import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.faiss_gpu import IvfBase
from cache.layered_partition import DEAD_RATIO, Base, HalfRows, LayeredPartition
from core.cached import Vector


def unit_rows(count: int, seed: int = 1) -> NDArray[np.float32]:
    rows = np.random.default_rng(seed).standard_normal((count, 384)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def named(start: int, end: int) -> list[str]:
    return [str(number) for number in range(start, end)]


class ExactBase:
    """A base that compares everything, notes how much was fetched, and fails when told."""

    def __init__(self, rows: HalfRows) -> None:
        self.rows = rows.astype(np.float32)
        self.fetched: list[int] = []
        self.fails = False

    def search(self, vector: Vector, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        if self.fails:
            raise RuntimeError("lost for the test")
        self.fetched.append(k)
        similarities = self.rows @ vector
        order = np.argsort(-similarities, kind="stable")[:k].astype(np.int64)
        return similarities[order], order


class Bases:
    """Builds exact bases, waiting or failing when told."""

    def __init__(self) -> None:
        self.built: list[ExactBase] = []
        self.may_build = threading.Event()
        self.may_build.set()
        self.asked = threading.Event()
        self.fails = False

    def __call__(self, rows: HalfRows) -> Base:
        self.asked.set()
        assert self.may_build.wait(20)
        if self.fails:
            raise RuntimeError("full for the test")
        self.built.append(ExactBase(rows))
        return self.built[-1]


def filled(bases: Bases, count: int, newcomers: int = 10) -> LayeredPartition:
    partition = LayeredPartition(384, bases, IvfBase, newcomers=newcomers)
    partition.add(named(0, count), unit_rows(count))
    partition.prepare()
    return partition


def nearest(partition: LayeredPartition, row: Vector, k: int = 1) -> list[str]:
    return [one.entry_id for one in partition.search(row, k)]


def test_newcomers_are_found_before_and_after_the_next_base() -> None:
    bases, rows = Bases(), unit_rows(220)
    partition = filled(bases, 200)
    partition.add(named(200, 220), rows[200:])
    bases.may_build.clear()
    assert nearest(partition, rows[219]) == ["219"]
    assert nearest(partition, rows[0]) == ["0"]
    bases.may_build.set()
    partition.settle()
    assert [len(base.rows) for base in bases.built] == [200, 220]
    assert nearest(partition, rows[219]) == ["219"]
    assert len(partition) == 220


def test_tombstones_are_left_out_and_more_is_fetched_while_they_crowd() -> None:
    bases = Bases()
    partition = LayeredPartition(384, bases, IvfBase, newcomers=10)
    rows = unit_rows(1_000)
    rows[:60] = rows[0] + 0.01 * rows[:60]
    rows[:60] /= np.linalg.norm(rows[:60], axis=1, keepdims=True)
    partition.add(named(0, 1_000), rows)
    partition.prepare()
    partition.remove(named(0, 59))
    found = nearest(partition, rows[0], 4)
    assert found[0] == "59"
    assert len(found) == 4
    assert bases.built[0].fetched == [10, 40, 160]
    assert len(partition) == 941


class RoughBase(ExactBase):
    """A base that finds the nearest but cannot tell them apart, as eight bits a dimension may not."""

    def search(self, vector: Vector, k: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        similarities, order = super().search(vector, k)
        return np.round(similarities[::-1], 0), order[::-1].copy()


def test_what_a_rough_base_finds_is_put_in_order_by_the_rows_in_memory() -> None:
    partition = LayeredPartition(384, RoughBase, IvfBase, newcomers=10)
    rows = unit_rows(50)
    rows[1:4] = rows[0] + np.array([[0.01], [0.02], [0.03]], dtype=np.float32) * rows[1:4]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    partition.add(named(0, 50), rows)
    partition.prepare()
    found = partition.search(rows[0], 3)
    assert [one.entry_id for one in found] == ["0", "1", "2"]
    assert [one.similarity for one in found] == pytest.approx((rows[:3] @ rows[0]).tolist(), abs=1e-3)


def test_many_tombstones_have_the_base_rebuilt_without_them() -> None:
    bases, rows = Bases(), unit_rows(100)
    partition = filled(bases, 100)
    partition.remove(named(0, int(100 * DEAD_RATIO) + 1))
    nearest(partition, rows[50])
    partition.settle()
    assert [len(base.rows) for base in bases.built] == [100, 89]
    assert nearest(partition, rows[50]) == ["50"]
    assert "0" not in partition


def test_what_changes_while_the_next_base_is_built_is_kept() -> None:
    bases, rows, others = Bases(), unit_rows(230), unit_rows(230, seed=9)
    partition = filled(bases, 200)
    partition.add(named(200, 215), rows[200:215])
    bases.may_build.clear()
    bases.asked.clear()
    nearest(partition, rows[0])
    assert bases.asked.wait(20)
    partition.remove(["7", "201", "8"])
    partition.add(["8"], others[8:9])
    partition.add(["220"], rows[220:221])
    for number in (7, 201):
        assert str(number) not in nearest(partition, rows[number], 4)
    bases.may_build.set()
    partition.settle()
    assert len(bases.built[-1].rows) == 215
    for number in (7, 201):
        assert str(number) not in nearest(partition, rows[number], 4)
    assert nearest(partition, others[8]) == ["8"]
    assert nearest(partition, rows[8]) != ["8"]
    assert nearest(partition, rows[220]) == ["220"]
    assert len(partition) == 214
    assert sorted(partition.ids(), key=int) == [*named(0, 7), *named(8, 201), *named(202, 215), "220"]
    assert np.allclose(partition.rows(["8", "3"]), np.stack([others[8], rows[3]]), atol=1e-3)


def test_a_base_that_fails_is_replaced_by_the_fallback_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    bases, rows = Bases(), unit_rows(101)
    partition = filled(bases, 100)
    partition.add(["new"], rows[100:])
    bases.built[0].fails = True
    with caplog.at_level(logging.WARNING):
        assert nearest(partition, rows[100]) == ["new"]
        partition.settle()
        assert nearest(partition, rows[3]) == ["3"]
    assert [record.message for record in caplog.records] == ["index failed, another is built on the CPU"]
    assert len(bases.built) == 1


def test_a_base_that_cannot_be_built_falls_back(caplog: pytest.LogCaptureFixture) -> None:
    bases, rows = Bases(), unit_rows(100)
    bases.fails = True
    with caplog.at_level(logging.WARNING):
        partition = filled(bases, 100)
    assert nearest(partition, rows[3]) == ["3"]
    assert "falling back to the CPU" in caplog.text


def test_when_nothing_can_be_built_newcomers_are_kept_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    bases, rows = Bases(), unit_rows(140)
    partition = LayeredPartition(384, bases, bases, newcomers=10)
    partition.add(named(0, 100), rows[:100])
    partition.prepare()
    bases.fails = True
    partition.add(named(100, 120), rows[100:120])
    assert nearest(partition, rows[110]) == ["110"]
    partition.settle()
    assert "the old one stays" in caplog.text
    bases.fails = False
    partition.add(named(120, 140), rows[120:])
    assert nearest(partition, rows[110]) == ["110"]
    partition.settle()
    assert len(bases.built[-1].rows) == 140
    assert all(nearest(partition, row) == [str(number)] for number, row in enumerate(rows))
