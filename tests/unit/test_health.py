"""When a deployment is taken out, how it comes back, and what others did to it does not count."""

import pytest

from backends.health import (
    FAILURES_TO_OPEN,
    LEAST_SHARE,
    LONGEST_COOL_S,
    LONGEST_OPEN_S,
    OPEN_S,
    RAMP_S,
    TRIAL_S,
    Health,
)
from core.plan import Readiness


def opened() -> Health:
    health = Health()
    for _ in range(FAILURES_TO_OPEN):
        health.fail(0.0, may_eject=False)
    return health


def test_each_opening_without_a_success_lasts_twice_as_long_up_to_two_minutes() -> None:
    health, now_s, lasted = opened(), OPEN_S, []
    for _ in range(6):
        health.fail(now_s, may_eject=False)
        lasted.append(health.retry_after_s(now_s))
        now_s += lasted[-1]
    assert lasted == [20.0, 40.0, 80.0, LONGEST_OPEN_S, LONGEST_OPEN_S, LONGEST_OPEN_S]


def test_requests_that_were_sent_before_it_opened_do_not_lengthen_it() -> None:
    health = opened()
    for _ in range(20):
        health.fail(1.0, may_eject=False)
    assert health.retry_after_s(1.0) == OPEN_S - 1.0


def test_one_request_at_a_time_is_the_trial() -> None:
    health = opened()
    assert health.begin(OPEN_S)
    assert health.readiness(OPEN_S + 1.0) is Readiness.DOWN
    assert not health.begin(OPEN_S + 1.0)
    assert health.readiness(OPEN_S + TRIAL_S) is Readiness.READY


def test_a_failed_trial_opens_again_at_once() -> None:
    health = opened()
    health.begin(OPEN_S)
    health.fail(OPEN_S + 1.0, may_eject=False, is_trial=True)
    assert health.retry_after_s(OPEN_S + 1.0) == 2 * OPEN_S


def test_a_trial_that_says_nothing_makes_room_for_another() -> None:
    health = opened()
    health.begin(OPEN_S)
    health.undecided(OPEN_S + 1.0)
    assert health.readiness(OPEN_S + 1.0) is Readiness.READY
    assert health.begin(OPEN_S + 1.0)


def test_who_comes_back_gets_its_share_gradually() -> None:
    health = opened()
    assert health.share(0.0) == 1.0
    health.succeed(OPEN_S)
    shares = [health.share(OPEN_S + after_s) for after_s in (0.0, RAMP_S / 2, RAMP_S, 5 * RAMP_S)]
    assert shares == [LEAST_SHARE, 0.5, 1.0, 1.0]


def test_a_success_without_an_opening_is_no_start() -> None:
    health = Health()
    health.succeed(5.0)
    assert health.share(5.0) == 1.0


@pytest.mark.parametrize(("stand_in", "expected"), [(True, Readiness.DOWN), (False, Readiness.READY)])
def test_who_fails_every_other_request_is_ejected_where_another_can_stand_in(
    stand_in: bool, expected: Readiness
) -> None:
    health = Health()
    for now_s in range(12):
        health.succeed(float(now_s) / 10)
        health.fail(float(now_s) / 10, may_eject=stand_in)
    assert health.readiness(1.2) is expected


def test_some_failures_among_many_successes_eject_nobody() -> None:
    health = Health()
    for now_s in range(60):
        for _ in range(4):
            health.succeed(float(now_s))
        health.fail(float(now_s), may_eject=True)
    assert health.readiness(60.0) is Readiness.READY


def test_a_cool_down_lasts_as_long_as_was_asked_and_a_second_one_extends_it() -> None:
    health = Health()
    health.cool(3.0, now_s=0.0)
    assert (health.readiness(2.9), health.readiness(3.0)) == (Readiness.DOWN, Readiness.READY)
    health.cool(3.0, now_s=2.0)
    health.cool(1.0, now_s=2.0)
    assert health.retry_after_s(2.0) == 3.0


def test_nobody_is_left_alone_for_a_day_because_it_said_so() -> None:
    health = Health()
    health.cool(86_400.0, now_s=0.0)
    assert health.retry_after_s(0.0) == LONGEST_COOL_S
