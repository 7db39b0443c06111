"""The learner: it begins at the score, learns, promotes only on evidence, takes back, and survives a restart."""

from datetime import UTC, datetime

import numpy as np
import pytest

from core.plan import Reason, Standing
from router.bandit import FORGETTING, Bandit
from router.chance import Allowed, Chance, chance_of
from router.confidence import Bound
from router.context import OWN, SIZE, Context, context_of
from router.decision import Inputs, decide
from router.learner import ERROR, LEAST_OUTCOMES, TenantLearner
from router.learners import MAX_CHANCES, Learners
from router.trial import compared_gain, doubly_robust, trial_of
from tests.planning import EASY, declared, two_tiers
from tests.unit.test_router_exploring import ALWAYS, exploring

NOW = datetime(2026, 1, 2, tzinfo=UTC)
TIERS = ("small", "large")


def chance(
    p: float = 0.9, floor: float = 0.5, answered: str = "small", ratio: float = 0.1, in_force: int = 0
) -> Chance:
    greedy = "small" if p >= floor else "large"
    odds = {tier: (1 - ratio if tier == greedy else ratio) for tier in TIERS}
    allowed = (Allowed("small", 0.0, 0.0, odds["small"]), Allowed("large", 1.0, 1.0 - floor, odds["large"]))
    return Chance("acme", context_of(p, "how far is Oslo", None), in_force, floor, allowed, greedy, answered)


def learner_with_a_candidate(small: float, large: float) -> TenantLearner:
    """Return a learner whose candidate has seen what both tiers are worth on one kind of request."""
    learner = TenantLearner(TIERS)
    for _ in range(LEAST_OUTCOMES):
        learner.said(chance(), small, NOW)
        learner.said(chance(answered="large"), large, NOW)
    assert learner.candidate is not None
    return learner


def test_the_context_is_the_same_everywhere_and_bounded() -> None:
    vector = np.full(384, 1 / np.sqrt(384), np.float32)
    x = context_of(0.25, "Why is 7 prime?", vector).x
    assert x.shape == (SIZE,)
    assert x[:OWN].tolist()[:2] == [1.0, 0.25]
    assert x[4] == 1.0
    assert x[7] == 1.0
    assert round(float(x[OWN:].sum()), 4) == -2.3678
    assert np.isfinite(context_of(1.0, "", None).x).all()


def test_without_outcomes_the_bandit_says_what_the_score_says() -> None:
    for p in (0.05, 0.5, 0.95):
        context = context_of(p, "how far is Oslo", None)
        bandit = Bandit(("small", "middle", "large"))
        assert bandit.frozen().p_small_suffices(context.x) == pytest.approx(p)
        assert bandit.quality("middle", context.x) == pytest.approx((1 + p) / 2)


def test_the_bandit_learns_and_forgets() -> None:
    bandit, x = Bandit(TIERS), context_of(0.9, "how far is Oslo", None).x
    for _ in range(300):
        bandit.learn("small", x, 0.0)
    assert bandit.quality("small", x) < 0.1
    for _ in range(int(3 / (1 - FORGETTING))):
        bandit.learn("small", x, 1.0)
    assert bandit.quality("small", x) > 0.9


def test_the_doubly_robust_estimate_is_right_in_the_mean_whatever_is_predicted() -> None:
    worth, prices = {"small": 0.4, "large": 0.8}, 0.5
    for predicted in ({"small": 0.4, "large": 0.8}, {"small": 0.9, "large": 0.1}):
        mean = sum(
            propensity * doubly_robust(chance(answered=tier, ratio=0.02), "large", predicted, worth[tier])
            for tier, propensity in (("small", 0.98), ("large", 0.02))
        )
        assert mean == pytest.approx(worth["large"] - worth["small"] - prices)
    assert doubly_robust(chance(), "small", worth, 0.0) == 0.0


def test_a_comparison_needs_no_estimate() -> None:
    assert compared_gain(chance(floor=0.9), "large", {"small": 0.0, "large": 1.0}) == pytest.approx(0.9)
    assert compared_gain(chance(floor=0.9), "large", {"small": 1.0, "large": 1.0}) == pytest.approx(-0.1)
    assert compared_gain(chance(), "large", {"small": 1.0}) is None


def test_a_bound_holds_the_mean_and_narrows() -> None:
    random, bound, widths = np.random.default_rng(1), Bound(2.0), []
    for n in range(4_000):
        bound.note(float(random.choice([-1.0, 0.5])), 0.05)
        low, high = bound.interval(0.05)
        assert low <= -0.25 <= high
        if n % 1_000 == 999:
            widths.append(high - low)
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.2
    with pytest.raises(ValueError, match="is beyond 2"):
        bound.note(2.5, 0.05)


def test_a_better_candidate_is_promoted_on_evidence_and_not_before() -> None:
    learner = learner_with_a_candidate(small=0.1, large=0.9)
    assert learner.due(promote=True) is None
    with pytest.raises(ValueError, match="not enough evidence yet on candidate 1"):
        learner.promote(NOW, "gateway")
    for n in range(1_000):
        learner.compared(chance(floor=0.8), n % 10 == 0, NOW)
        if learner.due(promote=True) == "promoted":
            break
    assert learner.due(promote=False) is None
    event = learner.carry_out("promoted", NOW)
    assert (event.what, event.version, learner.in_force, learner.candidate) == ("promoted", 1, 1, None)
    assert event.compared.low > 0.0
    assert event.compared.rows >= 100


def test_users_words_alone_promote_too() -> None:
    learner = learner_with_a_candidate(small=0.0, large=1.0)
    random = np.random.default_rng(2)
    for _ in range(4_000):
        answered = "large" if random.random() < 0.1 else "small"
        learner.said(chance(floor=0.8, answered=answered), float(answered == "large"), NOW)
        if learner.due(promote=True) == "promoted":
            break
    assert learner.due(promote=True) == "promoted"


def test_a_promoted_router_is_taken_back_when_the_score_is_better() -> None:
    learner = learner_with_a_candidate(small=0.1, large=0.9)
    while learner.due(promote=True) is None:
        learner.compared(chance(floor=0.8), False, NOW)
    learner.carry_out("promoted", NOW)
    in_force = [Allowed("small", 0.0, 0.0, 0.1), Allowed("large", 1.0, 0.2, 0.9)]
    context = context_of(0.9, "how far is Oslo", None)
    for _ in range(2_000):
        learner.compared(Chance("acme", context, 1, 0.8, tuple(in_force), "large", "large"), True, NOW)
        if learner.due(promote=True) == "demoted":
            break
    assert learner.carry_out("demoted", NOW).what == "demoted"
    assert learner.in_force == 0


def test_a_candidate_that_is_worse_is_replaced_under_a_stricter_bound() -> None:
    learner = learner_with_a_candidate(small=0.1, large=0.9)
    assert learner.candidate is not None
    assert learner.candidate.trial.alpha == ERROR / 2
    while learner.due(promote=True) is None:
        learner.compared(chance(floor=0.8), True, NOW)
    assert learner.due(promote=True) == "replaced"
    learner.carry_out("replaced", NOW)
    learner.compared(chance(floor=0.8), True, NOW)
    assert learner.candidate.number == 2
    assert learner.candidate.trial.alpha == ERROR / 6


def test_words_about_another_router_are_no_evidence_on_this_one() -> None:
    learner = learner_with_a_candidate(small=0.1, large=0.9)
    learner.said(chance(in_force=7), 0.0, NOW)
    assert learner.candidate is not None
    assert learner.candidate.trial.said.rows == 0
    learner.said(chance(), 0.0, NOW)
    assert learner.candidate.trial.said.rows == 1


def test_a_retry_teaches_little_and_is_no_evidence() -> None:
    learner = learner_with_a_candidate(small=0.9, large=0.9)
    x, trial = chance().context.x, learner.candidate.trial if learner.candidate else trial_of(1, 1)
    before = learner.bandit.quality("small", x)
    learner.asked_again(chance())
    assert 0.0 < before - learner.bandit.quality("small", x) < 0.02
    assert (trial.said.rows, trial.compared.rows) == (0, 0)


def test_what_was_learned_survives_a_restart_and_foreign_states_are_refused() -> None:
    learners = Learners("w@1")
    learners.tenants["acme"] = learner_with_a_candidate(small=0.1, large=0.9)
    again = Learners("w@1")
    again.restore(learners.dump())
    assert again.dump() == learners.dump()
    assert again.tenants["acme"].status("acme") == learners.tenants["acme"].status("acme")
    with pytest.raises(ValueError, match="instead of"):
        Learners("w@2").restore(learners.dump())
    with pytest.raises(ValueError, match="truncated"):
        Learners("w@1").restore(b"{")


def test_other_tiers_begin_anew_and_what_waits_is_bounded() -> None:
    learners = Learners("w@1")
    first = learners.of("acme", TIERS)
    assert learners.of("acme", TIERS) is first
    assert learners.of("acme", ("small",)) is not first
    for n in range(MAX_CHANCES + 5):
        learners.wait(f"req_{n}", chance())
    assert len(learners.chances) == MAX_CHANCES
    assert "req_0" not in learners.chances


def test_a_decision_becomes_a_chance_with_the_floor_as_exchange_rate() -> None:
    inputs = Inputs(declared(), exploring(), EASY, Standing(), two_tiers(), draw=ALWAYS)
    made, context = decide(inputs), Context(np.zeros(SIZE), 0.9)
    assert made.plan.reason is Reason.EXPLORE
    found = chance_of("acme", context, made, TIERS, 0, "large")
    assert found is not None
    assert [(one.tier, one.price, one.propensity) for one in found.allowed] == [
        ("small", 0.0, 0.98),
        ("large", 0.5, 0.02),
    ]
    assert (found.greedy, found.answered, found.choice(0.9), found.choice(0.1)) == ("small", "large", "small", "large")
    assert chance_of("acme", context, made, TIERS, 0, "small") is None
