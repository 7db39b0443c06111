"""Copies of shared entries: found by exact keys, bounded, never older than they may be, and gone for good."""

from datetime import UTC, datetime

import pytest

from cache.local_copies import LEASE_S, LocalCopies
from core.clock import ManualClock
from tests.caching import answer, entry


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime.fromtimestamp(0, UTC))


@pytest.fixture
def copies(clock: ManualClock) -> LocalCopies:
    made = LocalCopies(clock, most_entries=3, most_bytes=10_000)
    made.certify(clock.monotonic_s())
    return made


def test_a_copy_is_found_by_its_tenant_and_exact_keys_alone(copies: LocalCopies) -> None:
    copies.keep(entry("a"))
    for key in ("exact-a", "normalised-a"):
        found = copies.find("acme", key)
        assert found is not None
        assert found.entry_id == "id-a"
        assert copies.find("other", key) is None
    assert copies.find("acme", "id-a") is None


def test_a_copy_ends_with_its_entry(copies: LocalCopies, clock: ManualClock) -> None:
    copies.keep(entry("a", expires_at_s=10.0))
    clock.advance(9.9)
    assert copies.find("acme", "exact-a") is not None
    clock.advance(0.1)
    assert copies.find("acme", "exact-a") is None


def test_what_is_gone_stays_gone_although_a_late_read_brings_it(copies: LocalCopies) -> None:
    copies.keep(entry("a"))
    copies.drop(["id-a"])
    copies.keep(entry("a"))
    assert copies.find("acme", "exact-a") is None


def test_a_newer_answer_takes_the_place_of_an_older_one(copies: LocalCopies) -> None:
    copies.keep(entry("a"))
    copies.keep(entry("b", normalised_key="normalised-a"))
    found = copies.find("acme", "normalised-a")
    assert found is not None
    assert found.entry_id == "id-b"
    assert copies.find("acme", "exact-a") is None
    copies.drop_key("acme", "exact-b")
    assert copies.find("acme", "normalised-a") is None


def test_copies_are_bounded_in_number_and_bytes_and_the_least_used_go(copies: LocalCopies) -> None:
    for name in "abc":
        copies.keep(entry(name))
    assert copies.find("acme", "exact-a") is not None
    copies.keep(entry("d"))
    assert [copies.find("acme", f"exact-{name}") is not None for name in "abcd"] == [True, False, True, True]
    copies.keep(entry("long", answer=answer("x" * 8_000)))
    assert [copies.find("acme", f"exact-{name}") is None for name in ("a", "c", "d", "long")] == [
        True,
        True,
        True,
        False,
    ]


@pytest.mark.parametrize(("silent_s", "is_kept"), [(LEASE_S - 0.1, True), (LEASE_S, False)])
def test_copies_outlive_the_loss_of_the_store_only_if_it_was_told_lately(
    copies: LocalCopies, clock: ManualClock, silent_s: float, is_kept: bool
) -> None:
    copies.keep(entry("a"))
    clock.advance(silent_s)
    copies.lost()
    clock.advance(3_600.0)
    copies.lost()
    assert (copies.find("acme", "exact-a") is not None) == is_kept
    copies.keep(entry("made meanwhile"))
    copies.lost()
    assert copies.find("acme", "exact-made meanwhile") is not None
    copies.found()
    copies.lost()
    assert copies.find("acme", "exact-made meanwhile") is None
