"""The router's learning at work: it judges with what was promoted, draws what is explored, and learns from outcomes.

judged -> draw -> note -> (answered: compared in the background) -> take, an outcome -> settled: promoted or taken back

Only tenants whose policy sets `explore_ratio` or `shadow_ratio` take part; for others every call returns at once. What
is promoted or taken back is on record before it happens; when the audit log cannot be written, nothing changes.
"""

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from backends.attempt import Captured
from core.cached import Vector
from core.clock import Clock
from core.errors import ConfigurationError, InvalidRequest, Unavailable, UnknownName
from core.outcome import Outcome
from core.plan import Complexity
from core.rules import AutoTarget, Routing, TenantPolicy
from gateway.changes import Changes
from gateway.files import write_whole
from gateway.learning.comparing import Comparing
from gateway.learning.retries import RetryWatch
from gateway.settings.operator import Settings
from gateway.trace_draft import TraceDraft
from policies.audit import Actor
from policies.loading import PolicySet
from router.chance import Chance, chance_of
from router.context import Context, context_of
from router.exploring import draw_of
from router.learner import Event, Status, TenantLearner
from router.learners import Learners

logger = logging.getLogger("headgate.learning")
SETTLE_EVERY_S = 1.0
ITSELF = Actor("gateway", "automatic", "learning")


@dataclass(slots=True)
class Learning:
    """Learns for all tenants; used from the event loop, `save` from any thread."""

    learners: Learners
    comparing: Comparing
    policies: Callable[[], PolicySet]
    clock: Clock
    secret: bytes
    file: Path
    retries: RetryWatch = field(default_factory=RetryWatch)
    _due: set[str] = field(default_factory=set)
    _saving: threading.Lock = field(default_factory=threading.Lock)

    def judged(self, draft: TraceDraft, judged: Complexity | None, vector: Vector | None) -> Complexity | None:
        """Return what the promoted router makes of a score, and keep with `draft` what learners see of the request."""
        policy, text = draft.policy, draft.request.last_user_text
        if policy is None or judged is None or text is None or not policy.tenant_policy.routing.learns:
            return judged
        rules = policy.tenant_policy
        draft.context = context_of(judged.p_small_suffices, text, vector)
        return learned(self.learners, rules, judged, draft.context)

    def draw(self, draft: TraceDraft) -> float | None:
        """Return what decides whether this request explores; None where the policy explores nothing."""
        if draft.context is None or draft.policy is None or not draft.policy.tenant_policy.routing.explore_ratio:
            return None
        return draw_of(self.secret, draft.request.request_id, b"explore")

    def note(self, draft: TraceDraft, tier: str) -> None:
        """Wait for the outcome of what `tier` begins to answer, and see whether it asks a question again."""
        policy, decision, context = draft.policy, draft.decision, draft.context
        if policy is None or decision is None or context is None or not isinstance(policy.target, AutoTarget):
            return
        rules = policy.tenant_policy
        if rules.routing.learn_from_retries:
            self._note_retry(draft)
        learner = self.learners.of(rules.tenant, rules.tiers)
        chance = chance_of(rules.tenant, context, decision, rules.tiers, learner.in_force, tier)
        if chance is not None:
            self.learners.wait(draft.request.request_id, chance)

    def answered(self, draft: TraceDraft, captured: Callable[[], Captured | None]) -> None:
        """Compare a share of complete answers with the other end's, in the background."""
        request_id, policy = draft.request.request_id, draft.policy
        if policy is None or policy.tenant_policy.routing.shadow_ratio <= 0.0:
            return
        chance = self.learners.chances.get(request_id)
        if chance is None or draw_of(self.secret, request_id, b"compare") >= policy.tenant_policy.routing.shadow_ratio:
            return
        answer = captured()
        if answer is None or not answer.plain or answer.finish_reason != "stop" or draft.request.n != 1:
            return
        self.comparing.begin(draft.caller, draft.request, policy, chance, answer.content, self._compared)

    async def take(self, outcome: Outcome) -> None:
        """Learn from a user's word; see `core.outcome.OutcomeSink`. Of several on one request the first counts."""
        chance = self.learners.chances.get(outcome.request_id)
        learner = self._learner(outcome.tenant)
        if outcome.kind != "answer" or chance is None or chance.tenant != outcome.tenant or learner is None:
            return
        del self.learners.chances[outcome.request_id]
        learner.said(chance, outcome.score, self.clock.now())
        self._due.add(outcome.tenant)

    async def run(self, changes: Changes) -> None:
        """Settle, every second, what the evidence asks for."""
        while True:
            await asyncio.sleep(SETTLE_EVERY_S)
            for tenant in tuple(self._due):
                self._due.discard(tenant)
                await self.settle(tenant, changes)

    async def settle(self, tenant: str, changes: Changes) -> Event | None:
        """Promote, take back or replace what the tenant's evidence asks for, on record."""
        learner, routing = self._learner(tenant), self._routing(tenant)
        if learner is None or routing is None:
            return None
        what = learner.due(promote=routing.promotion == "automatic")
        if what is None or what == "replaced":
            return None if what is None else learner.carry_out(what, self.clock.now())
        try:
            async with changes.recording(ITSELF, f"routing.{what}", tenant, learner.in_force) as change:
                event = learner.carry_out(what, self.clock.now())
                change.after = learner.in_force
        except Unavailable as problem:
            self._due.add(tenant)
            logger.warning("a learned router waits for the audit log", extra={"problem": problem.message})
            return None
        logger.info("learned router", extra={"tenant": tenant, "what": what, "version": event.version})
        await asyncio.to_thread(self.save)
        return event

    def status(self, tenant: str | None) -> list[Status]:
        """Return what is known of one tenant, or of all that learn.

        Raises:
            UnknownName: the tenant has no policy.
        """
        if tenant is None:
            return [learner.status(name) for name, learner in sorted(self.learners.tenants.items())]
        return [self._known(tenant).status(tenant)]

    async def change(self, tenant: str, what: str, actor: Actor, changes: Changes) -> Status:
        """Promote the candidate or take back what is in force, as an administrator asks, on record.

        Raises:
            InvalidRequest: the evidence does not suffice, or nothing learned is in force.
            UnknownName: the tenant has no policy.
        """
        learner, now = self._known(tenant), self.clock.now()
        try:
            async with changes.recording(actor, f"routing.{what}", tenant, learner.in_force) as change:
                if what == "promote":
                    learner.promote(now, actor.name)
                else:
                    learner.take_back(now, "rolled_back", actor.name)
                change.after = learner.in_force
        except ValueError as problem:
            raise InvalidRequest(f"Refused: {problem}.") from problem
        await asyncio.to_thread(self.save)
        return learner.status(tenant)

    def save(self) -> None:
        """Write the state in one step; a disk that is full costs what was learned since, at the next start."""
        if not self.learners.tenants and not self.file.exists():
            return
        try:
            with self._saving:
                write_whole(self.file, self.learners.dump().decode())
        except ConfigurationError as problem:
            logger.warning("what was learned was not saved", extra={"problem": str(problem)})

    def _compared(self, chance: Chance, small_is_right: bool) -> None:
        learner = self._learner(chance.tenant)
        if learner is not None:
            learner.compared(chance, small_is_right, self.clock.now())
            self._due.add(chance.tenant)

    def _note_retry(self, draft: TraceDraft) -> None:
        caller, request = draft.caller, draft.request
        who, now_s = (caller.tenant, caller.key_id, caller.user), self.clock.monotonic_s()
        earlier = self.retries.noted(who, request.request_id, request.last_user_text or "", now_s)
        chance = None if earlier is None else self.learners.chances.get(earlier)
        learner = self._learner(caller.tenant)
        if chance is not None and learner is not None:
            learner.asked_again(chance)

    def _known(self, tenant: str) -> TenantLearner:
        """Return the learner of a tenant with a policy, a blank one where nothing was learned; raises UnknownName."""
        policy = self.policies().get(tenant)
        if policy is None:
            raise UnknownName(f"There is no tenant {tenant[:80]!r}.", param="tenant")
        return self._learner(tenant) or TenantLearner(policy.tiers)

    def _learner(self, tenant: str) -> TenantLearner | None:
        return self.learners.tenants.get(tenant)

    def _routing(self, tenant: str) -> Routing | None:
        policy = self.policies().get(tenant)
        return None if policy is None else policy.routing


def learned(learners: Learners, rules: TenantPolicy, judged: Complexity, context: Context) -> Complexity:
    """Return what the tenant's promoted router makes of a score; the score where none is in force."""
    learner = learners.tenants.get(rules.tenant)
    if learner is None or learner.promoted is None or learner.tiers != rules.tiers:
        return judged
    p = learner.promoted.router.p_small_suffices(context.x)
    return msgspec.structs.replace(judged, p_small_suffices=p, source=f"{judged.source};learned:{learner.in_force}")


def learning_file(settings: Settings) -> Path:
    """Return the file of what this process learned, beside the state."""
    return settings.own("learning").with_suffix(".json")


def load_learners(file: Path, weights: str) -> Learners:
    """Read what was learned; a file that cannot be used is one warning and a fresh start with the plain score."""
    learners = Learners(weights)
    try:
        learners.restore(file.read_bytes())
    except FileNotFoundError:
        return learners
    except (OSError, ValueError) as problem:
        logger.warning("the router learns afresh", extra={"file": str(file), "problem": str(problem)})
        return Learners(weights)
    return learners


def exploring_secret(pepper: bytes) -> bytes:
    """Return the key of the draws, so that nobody who sees request ids can tell which are explored."""
    return hashlib.blake2b(pepper, digest_size=32, person=b"explore-draws").digest()
