from benchmarks.soak_verdicts import Memory, memory_of, thinned, verdicts_of

REST: dict[str, object] = {
    "tasks": 18,
    "threads": 9,
    "descriptors": 53,
    "sockets": 31,
    "store_sockets": 8,
    "pool_threads": 2,
    "held_usd": 0.0,
    "in_flight": 0.0,
}
FLAT = Memory(400.0, 401.0, 399.0, 402.0, 0.0025, 2.0)


def samples(*sizes_mib: float) -> list[dict[str, float]]:
    return [{"at_s": 60.0 * at, "rss_mib": size} for at, size in enumerate(sizes_mib)]


def failing(memory: Memory, **after: float) -> list[str]:
    return [one.item for one in verdicts_of(memory, REST, {**REST, **after}) if not one.holds]


def test_memory_is_compared_between_the_first_and_the_last_fifth() -> None:
    memory = memory_of(samples(400, 402, 404, 406, 408, 410, 412, 414, 416, 418))
    assert (memory.first, memory.last, memory.least, memory.most) == (401, 417, 400, 418)
    assert memory.growth_ratio == round(16 / 401, 4)
    assert memory.mib_per_hour == 120.0


def test_what_is_flat_and_left_nothing_behind_holds() -> None:
    assert failing(FLAT) == []
    assert failing(FLAT, tasks=17, descriptors=50) == []


def test_memory_that_grew_by_more_than_two_percent_fails() -> None:
    assert failing(memory_of(samples(*[400.0] * 5, *[409.0] * 5))) == ["rss_mib"]


def test_anything_that_is_more_than_before_fails() -> None:
    assert failing(FLAT, tasks=19) == ["tasks"]
    assert failing(FLAT, threads=10, descriptors=54, sockets=32) == ["threads", "descriptors", "sockets"]


def test_what_is_kept_open_up_to_a_bound_may_be_more_than_before_but_no_more_than_that() -> None:
    assert failing(FLAT, store_sockets=9, pool_threads=6) == []
    assert failing(FLAT, store_sockets=500, pool_threads=33) == ["store_sockets", "pool_threads"]


def test_what_is_still_held_at_rest_fails() -> None:
    assert failing(FLAT, held_usd=0.001, in_flight=1.0) == ["held_usd", "in_flight"]


def test_many_samples_are_thinned_evenly() -> None:
    kept = thinned(samples(*range(361)), 120)
    assert len(kept) <= 120
    assert [one["rss_mib"] for one in kept[:3]] == [0, 4, 8]
