"""Who is held out follows from the request's id alone, and only where the router would have decided."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from core.chat import CacheControls, ChatRequest, Demands
from core.identity import Caller
from core.plan import Reason, Standing
from core.rules import AutoTarget, EffectivePolicy, RuledTarget, TierTarget
from core.trace import Trial
from gateway.holdout import Holdout
from gateway.trace_draft import TraceDraft
from router.decision import Inputs, decide
from tests.planning import EASY, chat, declared, policy, two_tiers

HALF = 0.5


def drawn(rules: EffectivePolicy, request: ChatRequest | None = None) -> tuple[EffectivePolicy, Trial | None]:
    made = TraceDraft(Caller("acme", "k"), request or chat(), "/v1/chat/completions", datetime.now(UTC), 0.0, None)
    made.facts = declared(made.request)
    return Holdout(b"secret").drawn(rules, made), made.trial


def with_ratio(rules: EffectivePolicy, ratio: float) -> EffectivePolicy:
    routing = replace(rules.tenant_policy.routing, holdout_ratio=ratio)
    return replace(rules, tenant_policy=replace(rules.tenant_policy, routing=routing))


def test_so_many_ids_are_held_out_as_the_policy_says() -> None:
    holdout = Holdout(b"secret")
    held = sum(holdout.draws(f"req_{n}", 200) for n in range(50_000))
    assert held == pytest.approx(1_000, abs=4 * (50_000 * 0.02 * 0.98) ** 0.5)


def test_the_same_id_is_drawn_alike_under_one_secret_and_not_under_another() -> None:
    ids = [f"req_{n}" for n in range(200)]
    once = [Holdout(b"secret").draws(one, 5_000) for one in ids]
    assert once == [Holdout(b"secret").draws(one, 5_000) for one in ids]
    assert once != [Holdout(b"other").draws(one, 5_000) for one in ids]


def test_a_held_out_request_goes_to_the_dearest_tier_without_a_cache() -> None:
    for n in range(20):
        request = msgspec.structs.replace(chat(), request_id=f"req_{n}")
        found, trial = drawn(with_ratio(policy(), HALF), request)
        if trial is not None and trial.held_out:
            break
    else:
        pytest.fail("half of the requests are held out, and of twenty none was")
    assert trial == Trial(held_out=True, per_10k=5_000)
    assert not found.tenant_policy.cache.enabled
    plan = decide(Inputs(declared(), found, EASY, Standing(), two_tiers())).plan
    assert (plan.tier, plan.reason, plan.steps[0].deployment) == ("large", Reason.HOLDOUT, "l")


def test_money_moves_a_held_out_request_like_any_other() -> None:
    rules = replace(policy(), target=AutoTarget(held_out=True))
    full = decide(Inputs(declared(), rules, EASY, Standing(), two_tiers())).plan
    poor = Standing(free_nano_usd=full.steps[0].worst_case_nano_usd - 1)
    plan = decide(Inputs(declared(), rules, EASY, poor, two_tiers())).plan
    assert (plan.tier, plan.reason, plan.degraded_from) == ("small", Reason.BUDGET, "large")


@pytest.mark.parametrize("target", [TierTarget("small"), RuledTarget("mail", "small")])
def test_what_somebody_chose_is_never_held_out(target: Any) -> None:
    rules = with_ratio(policy(target), HALF)
    assert drawn(rules) == (rules, None)


@pytest.mark.parametrize("controls", [CacheControls(bypass=True), CacheControls(only_if_cached=True)])
def test_who_asked_something_of_the_cache_is_never_held_out(controls: CacheControls) -> None:
    rules = with_ratio(policy(), HALF)
    assert drawn(rules, msgspec.structs.replace(chat(), demands=Demands(cache=controls))) == (rules, None)


def test_without_a_ratio_nobody_takes_part() -> None:
    assert drawn(policy()) == (policy(), None)
