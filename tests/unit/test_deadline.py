"""Two moments, and which of them binds."""

import pytest

from core.clock import ManualClock
from core.deadline import Deadline

NEVER = Deadline(None, None)


@pytest.mark.parametrize(
    ("ttft_ms", "total_ms", "deadline"),
    [
        (None, None, NEVER),
        (500, None, Deadline(10.5, None)),
        (None, 2000, Deadline(None, 12.0)),
        (500, 2000, Deadline(10.5, 12.0)),
    ],
)
def test_limits_start_when_the_request_was_received(
    ttft_ms: int | None, total_ms: int | None, deadline: Deadline
) -> None:
    assert Deadline.after(10.0, ttft_ms, total_ms) == deadline


@pytest.mark.parametrize(
    ("deadline", "sent", "left_s"),
    [
        (NEVER, False, None),
        (NEVER, True, None),
        (Deadline(3.0, 8.0), False, 2.0),
        (Deadline(3.0, 8.0), True, 7.0),
        (Deadline(9.0, 8.0), False, 7.0),
        (Deadline(3.0, None), False, 2.0),
        (Deadline(3.0, None), True, None),
        (Deadline(None, 8.0), False, 7.0),
        (Deadline(0.5, None), False, 0.0),
        (Deadline(None, 1.0), True, 0.0),
    ],
)
def test_the_next_limit_that_applies_binds(deadline: Deadline, sent: bool, left_s: float | None) -> None:
    clock = ManualClock()
    clock.advance(1.0)
    assert deadline.remaining_s(clock, first_token_sent=sent) == left_s


@pytest.mark.parametrize(
    ("promised", "wish_s", "both"),
    [
        (NEVER, None, NEVER),
        (NEVER, 2.0, Deadline(None, 2.0, end_is_callers=True)),
        (Deadline(1.0, 9.0), 2.0, Deadline(1.0, 2.0, end_is_callers=True)),
        (Deadline(1.0, 2.0), 9.0, Deadline(1.0, 2.0)),
        (Deadline(1.0, 2.0), None, Deadline(1.0, 2.0)),
    ],
)
def test_the_caller_can_only_tighten_the_end(promised: Deadline, wish_s: float | None, both: Deadline) -> None:
    assert promised.tightened_by_caller(wish_s) == both


def test_only_a_passed_wish_is_the_callers_fault() -> None:
    clock = ManualClock()
    wished = Deadline(None, 2.0, end_is_callers=True)
    assert not wished.is_missed_by_callers_wish(clock)
    clock.advance(2.0)
    assert wished.is_missed_by_callers_wish(clock)
    assert not Deadline(None, 2.0).is_missed_by_callers_wish(clock)
