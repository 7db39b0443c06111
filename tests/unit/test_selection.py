"""Which of several equal deployments goes first."""

import random
from collections import Counter
from contextlib import AbstractAsyncContextManager

import pytest

from backends.deployment import Deployment
from backends.health import FAILURES_TO_OPEN, OPEN_S
from backends.protocol import UpstreamCall, UpstreamResponse
from backends.registry import Registry
from core.clock import ManualClock
from core.deadline import Deadline
from core.money import Price

TIER = "small"


class Unused:
    """A backend that nobody calls."""

    def open(self, call: UpstreamCall, deadline: Deadline) -> AbstractAsyncContextManager[UpstreamResponse]:
        raise NotImplementedError

    async def close(self) -> None:
        """Nothing to close."""


def deployment(name: str, *, price: int = 1, local: bool = False) -> Deployment:
    return Deployment(name, "m", Price(price, price), Unused(), local=local)


class Tier:
    """A tier of deployments on a manual clock."""

    def __init__(self, *deployments: Deployment, seed: int = 7) -> None:
        self.clock = ManualClock()
        self.by_name = {one.name: one for one in deployments}
        self.registry = Registry(self.by_name, {TIER: tuple(self.by_name)}, self.clock, random.Random(seed))

    def order(self, affinity: bytes | None = None) -> tuple[str, ...]:
        return self.registry.snapshot(affinity).tiers[TIER]

    def firsts(self, times: int, affinity: bytes | None = None) -> Counter[str]:
        return Counter(self.order(affinity)[0] for _ in range(times))

    def streams(self, name: str, first_ms: float, times: int = 10) -> None:
        for _ in range(times):
            flight = self.registry.take_off(name, 100, streamed=True)
            self.clock.advance(first_ms / 1000)
            self.registry.began(name, flight)
            self.registry.land(name, flight)

    def under_way(self, name: str, count: int) -> None:
        for _ in range(count):
            self.registry.take_off(name, 100, streamed=True)


def test_deployments_that_differ_keep_the_operators_order() -> None:
    tier = Tier(deployment("cheap"), deployment("dear", price=2), deployment("hosted", local=True))
    tier.under_way("cheap", 50)
    assert tier.order() == ("cheap", "dear", "hosted")


def test_equal_idle_deployments_share_the_requests() -> None:
    tier = Tier(deployment("a"), deployment("b"), deployment("c"))
    firsts = tier.firsts(300)
    assert set(firsts) == {"a", "b"} or len(firsts) == 3
    assert max(firsts.values()) <= 210


def test_the_less_loaded_of_two_goes_first() -> None:
    tier = Tier(deployment("a"), deployment("b"))
    tier.under_way("a", 3)
    assert tier.firsts(20) == {"b": 20}


def test_a_slow_one_is_avoided_and_tried_again_once_its_peak_has_faded() -> None:
    tier = Tier(deployment("a"), deployment("b"))
    for name in ("a", "b", "a", "b"):
        tier.streams(name, 50.0)
    tier.streams("a", 500.0, times=1)
    assert tier.firsts(20) == {"b": 20}
    tier.clock.advance(60.0)
    tier.under_way("b", 1)
    assert tier.firsts(20) == {"a": 20}


def test_the_most_loaded_of_many_is_never_first() -> None:
    tier = Tier(*(deployment(name) for name in "abcd"))
    for count, name in enumerate("abcd"):
        tier.under_way(name, count)
    firsts = tier.firsts(200)
    assert "d" not in firsts
    assert firsts["a"] > firsts["b"] > firsts["c"] > 0


def test_who_comes_back_is_sent_less_at_first() -> None:
    tier = Tier(deployment("a"), deployment("b"))
    for name in ("a", "b"):
        tier.streams(name, 50.0)
    health = tier.by_name["a"].health
    for _ in range(FAILURES_TO_OPEN):
        health.fail(tier.clock.monotonic_s(), may_eject=False)
    assert tier.firsts(10) == {"b": 10}
    tier.clock.advance(OPEN_S)
    health.succeed(tier.clock.monotonic_s())
    tier.under_way("b", 4)
    assert tier.firsts(10) == {"b": 10}
    tier.clock.advance(5.0)
    assert tier.firsts(10) == {"a": 10}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_equal_seeds_choose_equally(seed: int) -> None:
    first, second = (Tier(deployment("a"), deployment("b"), seed=seed) for _ in range(2))
    assert [first.order() for _ in range(50)] == [second.order() for _ in range(50)]


def test_requests_with_a_common_prefix_meet_the_same_local_engine() -> None:
    tier = Tier(*(deployment(name, local=True) for name in "abcd"))
    by_prefix = {prefix: tier.firsts(10, prefix) for prefix in (b"one", b"two", b"three", b"four", b"five", b"six")}
    assert all(len(firsts) == 1 for firsts in by_prefix.values())
    assert len({name for firsts in by_prefix.values() for name in firsts}) > 1


def test_affinity_gives_way_when_its_engine_is_much_busier() -> None:
    tier = Tier(*(deployment(name, local=True) for name in "ab"))
    ((usual, _),) = tier.firsts(1, b"prefix").items()
    tier.under_way(usual, 8)
    assert usual not in tier.firsts(10, b"prefix")


def test_affinity_does_not_bind_remote_deployments() -> None:
    tier = Tier(deployment("a"), deployment("b"))
    assert len(tier.firsts(50, b"prefix")) == 2


def test_who_is_loaded_by_others_is_passed_over() -> None:
    tier = Tier(deployment("a"), deployment("b"))
    for name in ("a", "b"):
        tier.streams(name, 50.0)
    tier.registry.told("a", running=20.0, queued=5.0)
    assert tier.firsts(20) == {"b": 20}
