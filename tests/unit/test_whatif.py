"""Replaying a history: what stays stays to the nano-dollar, what moves is lent, and limits are the candidate's own."""

import random
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from core.plan import Complexity, Standing
from core.rules import Budget, CacheRules, Limits, Routing, Sla, TenantPolicy
from gateway.telemetry.request_rows import LoggedAttempt
from gateway.whatif.comparison import Comparison, simulate
from gateway.whatif.donors import Donors
from gateway.whatif.history import Past
from policies.loading import PolicySet
from router.decision import Inputs, decide
from router.receipt import Decided, receipt_of
from tests.planning import chat, declared, policy, two_tiers

START = datetime(2026, 3, 1, 12, tzinfo=UTC)
REGISTRY = two_tiers()
TIMES_MS = {"s": 100.0, "l": 900.0}
TOKENS = {"s": 40, "l": 90}


def rules(**changes: object) -> TenantPolicy:
    base = replace(policy(quality=0.5, tiers=("small", "large")).tenant_policy, cache=CacheRules(semantic=False))
    return replace(base, **changes)  # type: ignore[arg-type]


def decided(n: int, p: float) -> Past:
    """A request that quality 0.5 sent to small (p from 0.5 on) or large, two seconds after the one before."""
    inputs = Inputs(declared(chat("a b c")), policy(quality=0.5), Complexity(p, "model:t@1"), Standing(), REGISTRY)
    decision = decide(inputs)
    step = decision.plan.steps[0]
    recorded = receipt_of(Decided(f"req_{n}", START, "", inputs, decision), "r", "p").inputs
    cost = (20 + TOKENS[step.deployment]) * REGISTRY.deployments[step.deployment].price.input_pico_usd // 1_000
    total_ms = TIMES_MS[step.deployment] + n % 7
    answer = LoggedAttempt(
        1, step.deployment, step.tier, "m", 1.0, total_ms, total_ms, "complete", 200, 20, TOKENS[step.deployment],
        "reported", cost,
    )  # fmt: skip
    return Past(
        f"req_{n}", START.timestamp() + 2 * n, "acme", "k", "auto", False, 200, None, "miss", step.tier,
        step.deployment, 20, TOKENS[step.deployment], cost, total_ms, total_ms, False, True, answer, recorded,
    )  # fmt: skip


def hit(n: int) -> Past:
    return replace(decided(n, 0.9), cache="exact", cost_nano_usd=0, total_ms=1.0, answer=None, inputs=None)


@pytest.fixture(scope="module")
def history() -> tuple[Past, ...]:
    """Two hundred requests, as many easy as hard, one in five a hit."""
    draw = random.Random(3)
    return tuple(hit(n) if n % 5 == 4 else decided(n, draw.random()) for n in range(200))


def under(history: tuple[Past, ...], candidate: TenantPolicy) -> Comparison:
    return simulate(PolicySet.of({"acme": candidate}), REGISTRY, history, runs=2)


def test_the_policy_of_the_log_gives_what_was_logged_to_the_nano_dollar(history: tuple[Past, ...]) -> None:
    (one,) = under(history, rules()).tenants
    assert one.kept_ratio == 1.0
    assert one.now.cost_nano_usd.value == one.then.cost_nano_usd == sum(past.cost_nano_usd for past in history)
    assert {tier: share.value for tier, share in one.now.shares.items()} == one.then.shares
    assert (one.now.hits.value, one.now.refused.value, one.imputed, one.unmeasured) == (40, 0, 0, 0)


def test_requests_that_move_cost_what_answers_of_their_new_deployment_cost(history: tuple[Past, ...]) -> None:
    (one,) = under(history, rules(routing=Routing(quality=0.0))).tenants
    assert one.now.shares["small"].value == 1.0
    assert one.now.cost_nano_usd.value == 160 * (20 + TOKENS["s"])
    assert one.unmeasured == 0


def test_a_cache_that_is_off_asks_again_and_says_what_was_imputed(history: tuple[Past, ...]) -> None:
    (one,) = under(history, rules(cache=CacheRules(enabled=False))).tenants
    assert (one.now.hits.value, one.imputed) == (0, 40)
    assert one.now.cost_nano_usd.value > one.then.cost_nano_usd
    assert one.now.cost_nano_usd.low is not None
    assert one.now.cost_nano_usd.low < one.now.cost_nano_usd.value


def test_a_budget_of_the_candidate_is_held_and_never_passed(history: tuple[Past, ...]) -> None:
    limit = sum(past.cost_nano_usd for past in history) // 4
    budget = Budget("day", ZoneInfo("UTC"), limit, "reject")
    (one,) = under(history, rules(budgets=(budget,))).tenants
    assert one.now.cost_nano_usd.value <= limit
    assert one.now.refused.value > 0 or one.now.shares["large"].value < one.then.shares["large"]


def test_rate_limits_of_the_candidate_refuse(history: tuple[Past, ...]) -> None:
    (one,) = under(history, rules(limits=Limits(requests_per_minute=10))).tenants
    assert one.now.refused.value > 50
    assert set(one.refusals) == {"rate_limit_exceeded"}


def test_an_sla_that_donors_miss_is_missed(history: tuple[Past, ...]) -> None:
    sla = {"small": Sla(total_ms=1_000), "large": Sla(total_ms=500)}
    (one,) = under(history, rules(sla=sla, routing=Routing(quality=1.0))).tenants
    assert one.then.sla_attainment == 1.0
    assert one.now.sla_attainment is not None
    assert one.now.sla_attainment.value < 0.05, "what is cut is not kept, so that hits do not come either"


def test_a_deployment_that_never_answered_is_told_as_unmeasured(history: tuple[Past, ...]) -> None:
    only_small = tuple(past for past in history if past.deployment != "l")
    (one,) = under(only_small, rules(routing=Routing(quality=1.0))).tenants
    assert one.unmeasured > 0


def test_equal_seeds_give_equal_fates(history: tuple[Past, ...]) -> None:
    candidate = rules(routing=Routing(max_large_share=0.2))
    assert under(history, candidate) == under(history, candidate)


def test_too_few_requests_get_no_interval(history: tuple[Past, ...]) -> None:
    (one,) = under(history[:10], rules()).tenants
    assert one.now.cost_nano_usd.low is None


def test_nobody_borrows_the_own_answer(history: tuple[Past, ...]) -> None:
    donors, draw = Donors(history), random.Random(1)
    for past in history[:50]:
        donor = donors.draw(past, 0.5, past.deployment or "", draw)
        assert donor is not None
        assert donor.request_id != past.id


def test_hits_are_lost_where_the_candidate_leaves_fewer_answers_to_keep(history: tuple[Past, ...]) -> None:
    candidate = rules(routing=Routing(quality=0.5, holdout_ratio=0.5))
    (one,) = under(history, candidate).tenants
    assert 0 < one.now.hits.value < 0.6 * one.then.hits
