"""The small pure parts of supervision: the back-off, the log ring and the memory budget."""

import pytest

from backends.engines.expectation import restart_delay_s
from backends.engines.log_ring import MAX_LINE_CHARS, MAX_LINES, LogRing
from backends.engines.memory import MemoryBudget


def test_restarts_wait_0_10_20_and_so_on_up_to_300_seconds() -> None:
    delays = [restart_delay_s(failures, 10, 300) for failures in range(1, 9)]
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]
    assert restart_delay_s(10**6, 10, 300) == 300


def test_lines_are_put_together_from_chunks() -> None:
    ring = LogRing()
    for chunk in (b"one\ntw", b"o\n", b"thr"):
        ring.feed(chunk)
    assert ring.lines() == ("one", "two", "thr")


def test_the_ring_keeps_the_last_lines_and_cuts_long_ones() -> None:
    ring = LogRing()
    ring.feed(b"".join(b"%d\n" % number for number in range(MAX_LINES + 5)))
    assert ring.lines()[0] == "5"
    ring.feed(b"x" * 10_000)
    assert max(map(len, ring.lines())) == MAX_LINE_CHARS
    assert len(ring.lines()) == MAX_LINES


def test_a_reader_follows_by_line_numbers_and_skips_what_fell_out() -> None:
    ring = LogRing()
    ring.feed(b"one\ntwo\nunfinished")
    lines, number = ring.after(-1)
    assert (lines, number) == (("one", "two"), 2)
    assert ring.after(number) == ((), 2)
    ring.feed(b"\n")
    assert ring.after(number) == (("unfinished",), 3)
    ring.feed(b"x\n" * (MAX_LINES + 50))
    lines, number = ring.after(3)
    assert (len(lines), number) == (MAX_LINES, 3 + MAX_LINES + 50)


@pytest.mark.parametrize("raw", [b"\x1b[31mred\x1b[0m", b"re\x00d", b"\x07red\r"])
def test_control_characters_are_dropped(raw: bytes) -> None:
    ring = LogRing()
    ring.feed(raw + b"\n\n   \n")
    assert ring.lines() == ("red",)


def test_the_most_telling_line_is_the_last_error_of_the_present_process() -> None:
    ring = LogRing()
    ring.feed(b"error: old\n")
    ring.begin()
    assert ring.last() == ""
    ring.feed(b"loading\nerror: new\nbye")
    assert ring.last() == "error: new"
    ring.begin()
    ring.feed(b"loading")
    assert ring.last() == "loading"


def test_claims_stay_within_95_percent_of_the_device() -> None:
    budget = MemoryBudget(lambda _: 1000 << 20, {"cpu": 50 << 20})
    assert budget.shortfall("small", 400 << 20) is None
    assert budget.shortfall("large", 501 << 20) == "declares 501 MiB on cpu, but only 500 MiB are left of 1000 MiB"
    assert budget.shortfall("large", 500 << 20) is None


def test_a_second_claim_replaces_the_first_and_a_release_gives_it_back() -> None:
    budget = MemoryBudget(lambda _: 100)
    assert budget.shortfall("a", 90) is None
    assert budget.shortfall("a", 95) is None
    assert budget.shortfall("b", 1) is not None
    budget.release("a")
    budget.release("a")
    assert budget.shortfall("b", 95) is None


def test_memory_is_spread_evenly_over_an_engines_devices_and_counted_on_each() -> None:
    budget = MemoryBudget(lambda _: 1000 << 20)
    assert budget.shortfall("wide", 1600 << 20, ("cuda:0", "cuda:1")) is None
    assert budget.claims("cuda:1") == {"wide": 800 << 20}
    assert budget.shortfall("narrow", 151 << 20, ("cuda:1",)) == (
        "declares 151 MiB on cuda:1, but only 150 MiB are left of 1000 MiB"
    )
    assert budget.shortfall("narrow", 151 << 20, ("cpu",)) is None
