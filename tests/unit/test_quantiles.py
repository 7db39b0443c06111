"""The decaying sketch: how near its quantiles are, and how it forgets."""

import random

import pytest

from backends.quantiles import BUCKETS, GROWTH, SMALLEST, DecayingQuantiles


@pytest.mark.parametrize("q", [0.05, 0.5, 0.95, 0.99])
def test_quantiles_are_within_a_bucket_of_the_truth(q: float) -> None:
    rng = random.Random(7)
    values = sorted(rng.lognormvariate(4, 1) for _ in range(5_000))
    sketch = DecayingQuantiles(60.0)
    for value in values:
        sketch.add(value, now_s=100.0)
    assert sketch.quantile(q) == pytest.approx(values[int(q * len(values))], rel=0.06)


def test_what_is_old_weighs_half_after_each_half_life() -> None:
    sketch = DecayingQuantiles(10.0)
    sketch.add(5.0, now_s=0.0)
    sketch.add(5.0, now_s=10.0)
    assert sketch.weight(10.0) == pytest.approx(1.5)
    assert sketch.weight(30.0) == pytest.approx(1.5 / 4)


def test_a_change_wins_once_the_old_values_weigh_less() -> None:
    sketch = DecayingQuantiles(10.0)
    for _ in range(10):
        sketch.add(100.0, now_s=0.0)
    for _ in range(10):
        sketch.add(1000.0, now_s=20.0)
    assert sketch.quantile(0.5) == pytest.approx(1000.0, rel=0.06)


def test_a_year_of_silence_does_not_overflow() -> None:
    sketch = DecayingQuantiles(1.0)
    sketch.add(3.0, now_s=1.0)
    sketch.add(9.0, now_s=31_536_000.0)
    assert sketch.weight(31_536_000.0) == pytest.approx(1.0)
    assert sketch.quantile(0.01) == pytest.approx(9.0, rel=0.06)
    assert sketch.weight(1e9) < 1e-9


@pytest.mark.parametrize("value", [0.0, -3.0, 1e12])
def test_values_outside_the_range_count_as_its_ends(value: float) -> None:
    sketch = DecayingQuantiles(1.0)
    sketch.add(value, now_s=0.0)
    end = SMALLEST if value <= 0 else SMALLEST * GROWTH**BUCKETS
    assert sketch.quantile(0.5) == pytest.approx(end, rel=0.06)


def test_an_empty_sketch_has_no_weight() -> None:
    assert (DecayingQuantiles(1.0).quantile(0.5), DecayingQuantiles(1.0).weight(5.0)) == (0.0, 0.0)


def test_a_quantile_that_followed_every_value_is_that_of_a_fresh_look() -> None:
    rng = random.Random(11)
    for _ in range(50):
        followed, fresh = DecayingQuantiles(10.0), DecayingQuantiles(10.0)
        now_s, spread = 0.0, rng.choice([0.2, 2.0, 6.0])
        for _ in range(rng.randint(1, 400)):
            now_s += rng.choice([0.0, 0.1, 5.0, 900.0])
            value = rng.lognormvariate(rng.choice([0.0, 5.0]), spread)
            followed.add(value, now_s)
            fresh.add(value, now_s)
            followed.quantile(rng.choice([0.5, 0.95]))
        assert [followed.quantile(q) for q in (0.5, 0.95)] == [fresh.quantile(q) for q in (0.5, 0.95)]
