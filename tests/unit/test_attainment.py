"""Which requests are judged by their SLA, which missed it, and what rescuing them cost."""

from typing import Any

import pytest

from core.money import Usage
from core.trace import AttemptKind, AttemptOutcome
from gateway.telemetry.attainment import Attained, Verdict, rescue_costs, tpot_ms, verdict_on
from gateway.telemetry.sketch import encode
from tests.traces import a_hit, a_trace, an_attempt


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ({"sla_total_ms": 500.0}, "kept"),
        ({"sla_ttft_ms": 50.0, "sla_violated": True}, "missed"),
        ({"sla_violated": True}, "missed"),
        ({"sla_total_ms": 500.0, "status": 503}, "missed"),
        ({"sla_total_ms": 500.0, "status": 429}, None),
        ({"sla_total_ms": 500.0, "status": 499}, None),
        ({"sla_total_ms": 500.0, "status": 499, "sla_violated": True}, "missed"),
        ({"sla_total_ms": 500.0, "path": "shadow:cache"}, None),
        ({}, None),
    ],
)
def test_who_was_promised_something_and_stayed_is_judged(fields: dict[str, Any], verdict: Verdict | None) -> None:
    assert verdict_on(a_trace(**fields)) == verdict


def test_the_time_per_token_is_that_after_the_first() -> None:
    assert tpot_ms(a_trace(ttft_ms=100.0, total_ms=180.0, usage=Usage(20, 5))) == 20.0


@pytest.mark.parametrize("fields", [{"stream": False}, {"usage": Usage(20, 1)}, {"usage": None}, {"status": 502}])
def test_answers_without_a_second_token_have_no_time_per_token(fields: dict[str, Any]) -> None:
    assert tpot_ms(a_trace(**fields)) is None


def test_answers_from_the_cache_have_no_time_per_token() -> None:
    assert tpot_ms(a_hit()) is None


FIRST = an_attempt(n=1, outcome=AttemptOutcome.FAILED, cost_nano_usd=3)
LOSING_HEDGE = an_attempt(n=2, kind=AttemptKind.HEDGE, outcome=AttemptOutcome.OUTRUN, cost_nano_usd=9)
OUTRUN = an_attempt(n=1, outcome=AttemptOutcome.OUTRUN, cost_nano_usd=7)


@pytest.mark.parametrize(
    ("attempts", "costs"),
    [
        ((an_attempt(),), []),
        ((FIRST, an_attempt(n=2, kind=AttemptKind.FALLBACK)), [("fallback", 3)]),
        ((FIRST, an_attempt(n=2, kind=AttemptKind.RETRY)), [("retry", 3)]),
        ((OUTRUN, an_attempt(n=2, kind=AttemptKind.HEDGE)), [("hedge", 7)]),
        ((LOSING_HEDGE, an_attempt()), [("hedge", 9)]),
        ((an_attempt(cost_nano_usd=5), an_attempt(n=2, kind=AttemptKind.ESCALATION)), []),
        (
            (
                FIRST,
                an_attempt(n=2, kind=AttemptKind.FALLBACK, outcome=AttemptOutcome.FAILED, cost_nano_usd=4),
                an_attempt(n=3, kind=AttemptKind.RETRY),
            ),
            [("fallback", 3), ("retry", 4)],
        ),
    ],
)
def test_a_rescue_costs_what_did_not_answer(attempts: tuple[Any, ...], costs: list[Any]) -> None:
    assert rescue_costs(attempts) == costs


def test_an_attempt_that_was_outrun_without_a_hedge_in_sight_costs_no_rescue() -> None:
    assert rescue_costs((OUTRUN, an_attempt(n=2, kind=AttemptKind.FALLBACK))) == [("fallback", 0)]


def test_the_table_gives_back_what_was_counted() -> None:
    attained = Attained()
    attained.add(a_trace(attempts=(FIRST, an_attempt(n=2, kind=AttemptKind.RETRY))), "missed")
    assert Attained.of(attained.counts(), [encode(attained.tpot), None]) == attained
    assert (attained.judged, attained.missed, attained.retries, attained.retry_nano_usd) == (1, 1, 1, 3)
