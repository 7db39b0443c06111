"""Every nano-dollar between the baseline and the cost has one source."""

import pytest

from core.trace import AttemptKind, AttemptOutcome, RequestTrace
from gateway.telemetry.savings import sources_of
from tests.traces import a_hit, a_refusal, a_trace, an_attempt

LOST = an_attempt(n=1, outcome=AttemptOutcome.OUTRUN, cost_nano_usd=30)
FAILED = an_attempt(n=2, outcome=AttemptOutcome.FAILED, cost_nano_usd=7)
WON = an_attempt(n=3, kind=AttemptKind.HEDGE, cost_nano_usd=100)


def test_a_hit_saves_its_whole_baseline() -> None:
    assert sources_of(a_hit(baseline_nano_usd=900)) == {"cache": 900}
    assert sources_of(a_hit(cache="joined", baseline_nano_usd=800)) == {"cache": 800}


def test_lost_races_failed_tries_and_lost_prefixes_are_taken_off_the_choice_of_tier() -> None:
    trace = a_trace(attempts=(LOST, FAILED, WON), cost_nano_usd=137, baseline_nano_usd=1_000, lost_prefix_nano_usd=40)
    assert sources_of(trace) == {"hedging": -30, "tries": -7, "prefix": -40, "routing": 1_000 - 100 + 40}


def test_what_the_gateway_asks_by_itself_saves_nothing() -> None:
    assert sources_of(a_trace(path="shadow:cache", cost_nano_usd=50, baseline_nano_usd=500)) == {"judging": -50}


@pytest.mark.parametrize(
    "trace",
    [
        a_hit(baseline_nano_usd=900),
        a_trace(attempts=(LOST, FAILED, WON), cost_nano_usd=137, baseline_nano_usd=1_000, lost_prefix_nano_usd=40),
        a_trace(baseline_nano_usd=None),
        a_refusal(),
    ],
)
def test_the_sources_of_a_request_add_up_to_baseline_less_cost(trace: RequestTrace) -> None:
    baseline = trace.cost_nano_usd if trace.baseline_nano_usd is None else trace.baseline_nano_usd
    assert sum(sources_of(trace).values()) == baseline - trace.cost_nano_usd
