"""Learning at work without a server: promoted on record or not at all, kept over a restart, and learned from once."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from backends.dispatch import Dispatcher
from backends.registry import Registry
from core.clock import ManualClock
from core.errors import InvalidRequest
from core.identity import Caller
from core.outcome import Outcome
from core.rules import EffectivePolicy
from core.trace import RequestTrace
from gateway.changes import Changes
from gateway.learning.asking import Asking
from gateway.learning.comparing import Comparing
from gateway.learning.router_learning import Learning, load_learners
from gateway.trace_draft import TraceDraft
from policies.audit import Actor, AuditLog
from policies.ledger_memory import MemoryLedger
from policies.loading import PolicySet
from router.learner import TenantLearner
from router.learners import Learners
from tests.planning import EASY, chat, policy
from tests.unit.test_router_learner import chance, learner_with_a_candidate

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ROOT = Actor("key_file", "owner", "127.0.0.1")


class Bench:
    """A `Learning` over one tenant, with a real audit log."""

    def __init__(self, folder: Path, learner: TenantLearner, **routing: object) -> None:
        self.clock = ManualClock(NOW)
        self.log = AuditLog(folder / "audit.db", b"p" * 32, self.clock)
        self.changes = Changes(self.log)
        base = policy(tiers=("small", "large"))
        rules = base.tenant_policy
        learning = replace(rules.routing, explore_ratio=0.1, **routing)  # type: ignore[arg-type]
        self.policy = EffectivePolicy(replace(rules, routing=learning), "auto", base.target)
        policies = PolicySet({"acme": self.policy.tenant_policy}, "v1")
        registry = Registry({}, {}, self.clock)
        asking = Asking(MemoryLedger(self.clock), Dispatcher(registry, self.clock), self, self.clock, lambda: False)
        learners = Learners("w@1")
        learners.tenants["acme"] = learner
        comparing = Comparing(asking, self.same, self.clock)
        self.learning = Learning(learners, comparing, lambda: policies, self.clock, b"s" * 32, folder / "learning.json")

    def record(self, trace: RequestTrace) -> None:
        raise AssertionError("nothing is asked here")

    async def same(self, one: str, other: str) -> bool | None:
        return one == other

    def actions(self) -> list[tuple[str, str, str]]:
        return [(entry.actor, entry.action, entry.outcome) for entry in self.log.entries(10)]


@pytest.fixture
def bench_of(tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    made: list[Bench] = []

    def make(learner: TenantLearner, **routing: object) -> Bench:
        made.append(Bench(tmp_path, learner, **routing))
        return made[-1]

    yield make
    for bench in made:
        bench.log.close()


def better() -> TenantLearner:
    """Return a learner whose candidate has won."""
    learner = learner_with_a_candidate(small=0.1, large=0.9)
    while learner.due(promote=True) is None:
        learner.compared(chance(floor=0.8), False, NOW)
    return learner


async def test_a_won_trial_is_promoted_on_record_and_kept_over_a_restart(
    bench_of: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = bench_of(better())
    event = await bench.learning.settle("acme", bench.changes)
    assert event is not None
    assert (event.what, event.by) == ("promoted", "gateway")
    assert bench.actions() == [("gateway", "routing.promoted", "done")]
    (kept,) = load_learners(tmp_path / "learning.json", "w@1").tenants.values()
    assert kept.in_force == 1
    assert await bench.learning.settle("acme", bench.changes) is None


async def test_nothing_is_promoted_while_the_audit_log_cannot_be_written(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(better())
    bench.log.close()
    assert await bench.learning.settle("acme", bench.changes) is None
    assert bench.learning.status("acme")[0].in_force == 0


async def test_by_hand_means_that_the_gateway_waits_for_an_administrator(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(better(), promotion="manual")
    assert await bench.learning.settle("acme", bench.changes) is None
    assert (await bench.learning.change("acme", "promote", ROOT, bench.changes)).in_force == 1
    assert (await bench.learning.change("acme", "rollback", ROOT, bench.changes)).in_force == 0
    assert [action for _, action, _ in bench.actions()] == ["routing.promote", "routing.rollback"]
    with pytest.raises(InvalidRequest, match="nothing learned is in force"):
        await bench.learning.change("acme", "rollback", ROOT, bench.changes)


async def test_an_outcome_teaches_once_and_only_about_ones_own_request(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(TenantLearner(("small", "large")))
    bench.learning.learners.wait("req_1", chance())
    for tenant, kind in (("other", "answer"), ("acme", "cache"), ("acme", "answer"), ("acme", "answer")):
        await bench.learning.take(Outcome("req_1", tenant, kind, 1.0, NOW))  # type: ignore[arg-type]
    learner = bench.learning.learners.tenants["acme"]
    assert learner.outcomes == 1


def test_what_is_in_force_judges_and_the_record_names_it(bench_of: Callable[..., Bench]) -> None:
    learner = better()
    learner.carry_out("promoted", NOW)
    bench = bench_of(learner)
    draft = TraceDraft(Caller("acme", "key"), chat("how far is Oslo"), "/v1/chat/completions", NOW, 0.0, None)
    assert bench.learning.judged(draft, EASY, None) is EASY
    draft.policy = bench.policy
    judged = bench.learning.judged(draft, EASY, np.zeros(384, np.float32))
    assert judged is not None
    assert judged.source == f"{EASY.source};learned:1"
    assert judged.p_small_suffices < EASY.p_small_suffices
    assert draft.context is not None
    assert draft.context.p == EASY.p_small_suffices
    assert bench.learning.draw(draft) == bench.learning.draw(draft)


def test_a_days_budget_for_comparisons_is_not_exceeded(bench_of: Callable[..., Bench]) -> None:
    bench = bench_of(TenantLearner(("small", "large")), shadow_ratio=1.0, shadow_budget_nano_usd=100)
    comparing = bench.learning.comparing
    comparing.spent["acme"] = (NOW.date(), 100)
    begun = comparing.begin(Caller("acme", "key"), chat(), bench.policy, chance(), "yes", lambda *_: None)
    assert not begun
    bench.clock.advance(86_400)
    assert comparing.spent_nano_usd("acme") == 0


def test_a_broken_file_is_a_fresh_start(tmp_path: Path) -> None:
    (tmp_path / "learning.json").write_text("{")
    assert load_learners(tmp_path / "learning.json", "w@1").tenants == {}
