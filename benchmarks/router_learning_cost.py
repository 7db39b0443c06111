"""CPU time of what learning adds to one request: the context, the learned score, the draw, and the note that waits."""

import time
from collections.abc import Callable
from dataclasses import replace

import msgspec
import numpy as np

from core.plan import Standing
from gateway.learning.retries import RetryWatch
from router.chance import chance_of
from router.context import context_of
from router.decision import Inputs, decide
from router.exploring import draw_of
from router.learner import TenantLearner
from router.learners import Learners
from tests.planning import EASY, chat, declared, policy, two_tiers

ROUNDS, CALLS = 15, 400
TIERS = ("small", "large")


def hot_path_ms() -> dict[str, float]:
    """Return the median CPU milliseconds of one request with 200 words and an embedding, by part and all together."""
    text, vector = "Which boats sail best in 20 knots of wind? " * 22, np.full(384, 384**-0.5, np.float32)
    base = policy()
    routing = replace(base.tenant_policy.routing, explore_ratio=0.02)
    exploring = replace(base, tenant_policy=replace(base.tenant_policy, routing=routing))
    inputs = Inputs(declared(chat(text)), exploring, EASY, Standing(), two_tiers(), draw=0.5)
    decision, context = decide(inputs), context_of(0.9, text, vector)
    frozen, learners, watch = TenantLearner(TIERS).bandit.frozen(), Learners("w@1"), RetryWatch()
    numbers = iter(range(10**9))

    def noted() -> None:
        chance = chance_of("acme", context, decision, TIERS, 0, "small")
        assert chance is not None
        learners.wait(f"req_{next(numbers)}", chance)

    parts: dict[str, Callable[[], object]] = {
        "context": lambda: context_of(0.9, text, vector),
        "learned_score": lambda: frozen.p_small_suffices(context.x),
        "draw": lambda: draw_of(b"secret", "req_0123456789abcdef", b"explore"),
        "note": noted,
        "retry": lambda: watch.noted(("acme", "key", None), f"req_{next(numbers)}", text, 0.0),
    }
    found = {name: _median_ms(call) for name, call in parts.items()}
    plain = _plain(inputs)
    found["propensities"] = max(0.0, _median_ms(lambda: decide(inputs)) - _median_ms(lambda: decide(plain)))
    found["all"] = sum(found.values())
    return {name: round(value, 5) for name, value in found.items()}


def _plain(inputs: Inputs) -> Inputs:
    rules = inputs.policy.tenant_policy
    plain = replace(rules, routing=replace(rules.routing, explore_ratio=0.0))
    return msgspec.structs.replace(inputs, policy=replace(inputs.policy, tenant_policy=plain), draw=None)


def _median_ms(call: Callable[[], object]) -> float:
    rounds = []
    for _ in range(ROUNDS):
        began_s = time.process_time()
        for _ in range(CALLS):
            call()
        rounds.append((time.process_time() - began_s) / CALLS * 1000)
    return sorted(rounds)[ROUNDS // 2]
