"""Percentiles of sketches stay within their stated error, and sketches add up."""

import random
from collections import Counter

from gateway.telemetry.sketch import ERROR_RATIO, bucket_of, encode, exact_percentile, merged, percentile


def durations(seed: int) -> list[float]:
    draw = random.Random(seed)
    return [draw.lognormvariate(4, 1.5) for _ in range(5_000)]


def test_percentiles_are_within_one_percent_of_the_exact_ones() -> None:
    for seed in range(5):
        values = durations(seed)
        counts = Counter(bucket_of(value) for value in values)
        for q in (0.01, 0.5, 0.95, 0.99, 1.0):
            told, exact = percentile(counts, q), exact_percentile(sorted(values), q)
            assert told is not None
            assert exact is not None
            assert abs(told - exact) <= ERROR_RATIO * exact * 1.0001


def test_the_sum_of_sketches_is_the_sketch_of_all() -> None:
    first, second = durations(1), durations(2)
    parts = [encode(Counter(bucket_of(value) for value in part)) for part in (first, second)]
    assert merged([*parts, None]) == Counter(bucket_of(value) for value in first + second)


def test_nothing_has_no_percentile() -> None:
    assert percentile({}, 0.5) is None
    assert exact_percentile([], 0.5) is None
    assert encode({}) is None


def test_what_is_too_short_to_tell_counts_as_the_least() -> None:
    assert bucket_of(0.0) == bucket_of(0.01)
