"""What one request was promised, and when it must have begun."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from core.chat import Demands
from core.plan import LatencyForecast, Plan, PlannedStep, Reason
from core.rules import EffectivePolicy, ServiceClass, Sla
from gateway.promises import due_s, promised
from tests.planning import chat, policy

PLAN = Plan((PlannedStep("s", "small", 100, None, 0, 0),), Reason.SCORE, "small")
SLA = Sla(ttft_ms=300, total_ms=5_000, idle_ms=1_000, min_output_tokens_per_s=20.0)
AT_S = 50.0


def of_class(service_class: ServiceClass, sla: Sla = SLA) -> EffectivePolicy:
    given = policy(sla={"small": sla})
    return replace(given, tenant_policy=replace(given.tenant_policy, service_class=service_class))


def deadline_of(service_class: ServiceClass = "interactive", wish: Demands | None = None, **fields: Any) -> Any:
    request = msgspec.structs.replace(chat(**fields), demands=wish or Demands())
    return promised(PLAN, of_class(service_class), request, AT_S)


def test_a_stream_is_promised_its_first_token_its_flow_and_its_end() -> None:
    deadline = deadline_of(stream=True)
    assert (deadline.first_token_at_s, deadline.end_at_s) == (50.3, 55.0)
    assert (deadline.idle_s, deadline.min_output_tokens_per_s) == (1.0, 20.0)


def test_a_plain_answer_is_promised_its_end_alone() -> None:
    deadline = deadline_of()
    assert (deadline.first_token_at_s, deadline.end_at_s) == (None, 55.0)
    assert (deadline.idle_s, deadline.min_output_tokens_per_s) == (None, None)


def test_batch_is_promised_no_first_token() -> None:
    assert deadline_of("batch", stream=True).first_token_at_s is None


@pytest.mark.parametrize(
    ("wish", "fields", "end_at_s", "is_callers"),
    [
        (Demands(deadline_ms=2_000), {"stream": True}, 52.0, True),
        (Demands(deadline_ms=9_000), {}, 55.0, False),
        (Demands(read_timeout_ms=1_000), {}, 51.0, True),
        (Demands(read_timeout_ms=1_000), {"stream": True}, 55.0, False),
        (Demands(deadline_ms=3_000, read_timeout_ms=1_000), {}, 51.0, True),
    ],
)
def test_a_client_may_tighten_its_limit_and_never_loosen_it(
    wish: Demands, fields: dict[str, Any], end_at_s: float, is_callers: bool
) -> None:
    deadline = deadline_of(wish=wish, **fields)
    assert (deadline.end_at_s, deadline.end_is_callers) == (end_at_s, is_callers)


@pytest.mark.parametrize(
    ("service_class", "forecast", "expected"),
    [
        ("interactive", None, 50.5),
        ("interactive", LatencyForecast(base_ms=200.0, ms_per_input_token=1.0), 50.5),
        ("interactive", LatencyForecast(base_ms=450.0, ms_per_input_token=1.0), None),
        ("batch", None, None),
    ],
)
def test_without_limits_interactive_has_a_goal_where_the_tier_can_keep_it(
    service_class: ServiceClass, forecast: LatencyForecast | None, expected: float | None
) -> None:
    rules = of_class(service_class, Sla()).tenant_policy
    deadline = promised(PLAN, of_class(service_class, Sla()), chat(), AT_S)
    assert (deadline.end_at_s, due_s(deadline, rules, forecast, 100, AT_S)) == (None, expected)


def test_a_limit_is_what_orders_the_queue_where_there_is_one() -> None:
    rules = of_class("interactive").tenant_policy
    assert due_s(deadline_of(stream=True), rules, None, 100, AT_S) == 50.3
