"""The decision record: what a request's plan was made from, what was decided, and by which versions of everything.

A receipt holds the inputs of `router.decision.decide`, so that the decision can be made again and compared byte by
byte. Its encoding is canonical: the same decision of the same inputs gives the same bytes, on every machine. It holds
no text of the request; end users are named only where a rule of the policy names them.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import cast

import msgspec

from core.errors import HeadgateError
from core.facts import RequestFacts
from core.money import Price
from core.plan import Complexity, DeploymentSnapshot, PlannedStep, RegistrySnapshot, Standing
from core.rules import (
    AutoTarget,
    CacheRules,
    DeploymentTarget,
    EffectivePolicy,
    Limits,
    Routing,
    Sla,
    Target,
    TenantPolicy,
    TierTarget,
    WhenLoading,
)
from core.weighing import Steering, Weighing
from router.decision import Decision, Inputs, decide
from router.exploring import Propensities
from router.sessions import Hold, SessionState

SCHEMA = 1
POLICY_KEY = b'"policy":'
"""Where the policy begins in the canonical bytes: the first such bytes, since within a text quotes are escaped."""
MAX_REMEMBERED = 256


class PolicyInForce(msgspec.Struct, frozen=True):
    """The part of a tenant's policy that a decision depends on.

    `asked` is `auto`, `holdout`, `tier:NAME` or `deployment:NAME`.
    """

    tenant: str
    version: str
    alias: str
    asked: str
    tiers: tuple[str, ...]
    deployments: tuple[str, ...]
    routing: Routing
    sla: tuple[tuple[str, Sla], ...]
    max_output_tokens: int | None
    when_loading: WhenLoading
    fallback: bool


class RecordedInputs(msgspec.Struct, frozen=True):
    """`router.decision.Inputs` with nothing in it that has no order; `tiers` are cheapest first."""

    facts: RequestFacts
    policy: PolicyInForce
    complexity: Complexity | None
    standing: Standing
    tiers: tuple[tuple[str, tuple[str, ...]], ...]
    deployments: tuple[DeploymentSnapshot, ...]
    steering: Steering
    session: SessionState | None
    draw: float | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What was decided; of a refusal the error's code alone, and no steps.

    Attributes:
        reason: the token of `x-headgate-reason`: the binding constraint.
        tier: of the first step; `degraded_from` is the tier that was wanted in place of a lesser one.
        rule: the policy's rule that decided.
        hold: why the session's tier was kept.
        escalates_to: the step that answers when the first one's answer does not stand verification.
        weighing: every candidate with predicted quality, times and cost, what excluded it, and the scale.
        propensities: P(tier) of each tier that could be drawn, empty where the choice was certain.
        greedy_tier: what would have been chosen without exploring.
    """

    reason: str
    tier: str | None = None
    degraded_from: str | None = None
    rule: str | None = None
    hold: Hold | None = None
    steps: tuple[PlannedStep, ...] = ()
    worst_case_nano_usd: int = 0
    weighing: Weighing | None = None
    escalates_to: int | None = None
    refusal: str | None = None
    propensities: Propensities = ()
    greedy_tier: str | None = None


class Versions(msgspec.Struct, frozen=True):
    """By what it was decided: digests of the policy, the router's weights and the prices, and the program's version."""

    policy: str
    router: str
    prices: str
    program: str


class Receipt(msgspec.Struct, frozen=True):
    """One decision; `id` is the request's, `prompt_hash` a keyed hash of its last user text."""

    id: str
    decided_at: datetime
    prompt_hash: str
    inputs: RecordedInputs
    outcome: Outcome
    versions: Versions
    schema: int = SCHEMA


class Decided(msgspec.Struct, frozen=True):
    """What happened, as the request leaves it behind: a receipt is made of it off the event loop."""

    id: str
    decided_at: datetime
    prompt_hash: str
    inputs: Inputs
    decided: Decision | HeadgateError


_encoder = msgspec.json.Encoder(order="deterministic")
_decoder = msgspec.json.Decoder(Receipt)


def receipt_of(decided: Decided, router: str, program: str) -> Receipt:
    """Return the record of a decision, or of a refusal to decide, by these versions of router and program."""
    return _receipt(decided, router, program, _in_force)


class ReceiptWriter:
    """Encodes decisions as `encode_receipt` does their receipts; what they share of a policy is encoded once."""

    def __init__(self, router: str, program: str) -> None:
        self._router = router
        self._program = program
        self._policies: dict[tuple[int, str, str, tuple[str, ...]], tuple[TenantPolicy, msgspec.Raw]] = {}

    def content(self, decided: Decided) -> bytes:
        """Return the canonical bytes; for any thread."""
        return self.written(decided)[0]

    def written(self, decided: Decided) -> tuple[bytes, bytes]:
        """Return the canonical bytes, and of them those of the policy in force, which many records share."""
        receipt = _receipt(decided, self._router, self._program, self._encoded)
        return _encoder.encode(receipt), bytes(cast(msgspec.Raw, receipt.inputs.policy))

    def _encoded(self, policy: EffectivePolicy, deployments: tuple[str, ...]) -> PolicyInForce:
        rules = policy.tenant_policy
        key = (id(rules), policy.alias, _asked(policy.target), deployments)
        known = self._policies.get(key)
        if known is None or known[0] is not rules:
            if len(self._policies) >= MAX_REMEMBERED:
                self._policies.clear()
            known = self._policies[key] = (rules, msgspec.Raw(_encoder.encode(_in_force(policy, deployments))))
        return cast(PolicyInForce, known[1])  # the encoder takes what is encoded as it is


def _receipt(
    decided: Decided,
    router: str,
    program: str,
    in_force: Callable[[EffectivePolicy, tuple[str, ...]], PolicyInForce],
) -> Receipt:
    recorded = _recorded(decided.inputs, decided.decided, in_force)
    prices = _price_digest(tuple([(one.name, one.price) for one in recorded.deployments]))
    versions = Versions(decided.inputs.policy.tenant_policy.version, router, prices, program)
    at = decided.decided_at
    if at.tzinfo is not UTC:
        at = at.astimezone(UTC)
    return Receipt(decided.id, at, decided.prompt_hash, recorded, _outcome(decided.decided), versions)


def encode_receipt(receipt: Receipt) -> bytes:
    """Return the canonical bytes."""
    return _encoder.encode(receipt)


def decode_receipt(content: bytes) -> Receipt:
    """Return the receipt of canonical bytes.

    Raises:
        ValueError: they are no receipt of a schema that this program knows.
    """
    receipt = _decoder.decode(content)
    if receipt.schema != SCHEMA:
        raise ValueError(f"schema {receipt.schema}, this program knows {SCHEMA}")
    return receipt


def recomputed(receipt: Receipt) -> Receipt:
    """Return the receipt with the outcome that its inputs give now."""
    try:
        decided: Decision | HeadgateError = decide(_inputs(receipt.inputs))
    except HeadgateError as refusal:
        decided = refusal
    return msgspec.structs.replace(receipt, outcome=_outcome(decided))


@dataclass(frozen=True, slots=True)
class Examination:
    """A receipt held against its own inputs and against what is in force now.

    Attributes:
        identical: deciding again from the recorded inputs gives the same bytes.
        differs: the keys that come out otherwise.
        changed: which versions are others now, by which the same request could be decided otherwise.
    """

    identical: bool
    differs: tuple[str, ...]
    changed: tuple[str, ...]


def examine(content: bytes, now: Versions | None) -> Examination:
    """Decide again what `content` records; `now` are the versions in force, None when nobody knows them.

    Raises:
        ValueError: `content` is no receipt of a known schema.
    """
    receipt = decode_receipt(content)
    again = encode_receipt(recomputed(receipt))
    differs = tuple(_differences(msgspec.json.decode(content), msgspec.json.decode(again), ""))
    changed: tuple[str, ...] = ()
    if now is not None:
        changed = tuple(
            name for name in Versions.__struct_fields__ if getattr(now, name) != getattr(receipt.versions, name)
        )
    return Examination(again == content, differs, changed)


def _differences(old: object, new: object, key: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for name in {**old, **new}:
            yield from _differences(old.get(name), new.get(name), f"{key}.{name}" if key else name)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for at, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{key}[{at}]")
    elif old != new:
        yield key


def price_digest(deployments: tuple[DeploymentSnapshot, ...]) -> str:
    """Return a digest of the prices of these deployments."""
    return _price_digest(tuple([(one.name, one.price) for one in deployments]))


@lru_cache(maxsize=MAX_REMEMBERED)
def _price_digest(prices: tuple[tuple[str, Price], ...]) -> str:
    return hashlib.blake2b(_encoder.encode(prices), digest_size=6).hexdigest()


def _outcome(decided: Decision | HeadgateError) -> Outcome:
    if isinstance(decided, HeadgateError):
        return Outcome(reason="refused", refusal=decided.code)
    plan = decided.plan
    return Outcome(
        reason=str(plan.reason),
        tier=plan.tier,
        degraded_from=plan.degraded_from,
        rule=decided.rule,
        hold=decided.hold,
        steps=plan.steps,
        worst_case_nano_usd=plan.worst_case_nano_usd,
        weighing=plan.weighing,
        escalates_to=plan.escalates_to,
        propensities=decided.propensities,
        greedy_tier=decided.greedy_tier,
    )


def _recorded(
    inputs: Inputs,
    decided: Decision | HeadgateError,
    in_force: Callable[[EffectivePolicy, tuple[str, ...]], PolicyInForce],
) -> RecordedInputs:
    """Return the inputs without deployments that could not have answered, which change nothing."""
    rules, registry = inputs.policy.tenant_policy, inputs.registry
    names = set(registry.deployments)
    if isinstance(decided, Decision) and decided.plan.weighing is not None:
        names = {candidate.deployment for candidate in decided.plan.weighing.candidates}
    tiers = [(tier, tuple([one for one in listed if one in names])) for tier, listed in registry.tiers.items()]
    return RecordedInputs(
        facts=_without_strangers(inputs.facts, rules.routing),
        policy=in_force(inputs.policy, tuple(sorted(rules.deployments & names)) if rules.deployments else ()),
        complexity=inputs.complexity,
        standing=inputs.standing,
        tiers=tuple(tiers),
        deployments=tuple([one for name, one in registry.deployments.items() if name in names]),
        steering=inputs.steering,
        session=inputs.session,
        draw=inputs.draw,
    )


def _in_force(policy: EffectivePolicy, deployments: tuple[str, ...]) -> PolicyInForce:
    """Return the part of a policy that a decision depends on; of its deployments, only these."""
    rules = policy.tenant_policy
    return PolicyInForce(
        tenant=rules.tenant,
        version=rules.version,
        alias=policy.alias,
        asked=_asked(policy.target),
        tiers=rules.tiers,
        deployments=deployments,
        routing=rules.routing,
        sla=tuple((tier, sla) for tier, sla in rules.sla.items()),
        max_output_tokens=rules.max_output_tokens,
        when_loading=rules.when_loading,
        fallback=rules.fallback,
    )


def _inputs(recorded: RecordedInputs) -> Inputs:
    policy = recorded.policy
    rules = TenantPolicy(
        tenant=policy.tenant,
        version=policy.version,
        models={},
        tiers=policy.tiers,
        deployments=frozenset(policy.deployments),
        budgets=(),
        limits=Limits(),
        service_class="interactive",
        sla=dict(policy.sla),
        routing=policy.routing,
        cache=CacheRules(),
        max_output_tokens=policy.max_output_tokens,
        on_store_outage="closed",
        when_loading=policy.when_loading,
        fallback=policy.fallback,
    )
    deployments: Mapping[str, DeploymentSnapshot] = {one.name: one for one in recorded.deployments}
    return Inputs(
        facts=recorded.facts,
        policy=EffectivePolicy(rules, policy.alias, _target(policy.asked)),
        complexity=recorded.complexity,
        standing=recorded.standing,
        registry=RegistrySnapshot(deployments, dict(recorded.tiers)),
        steering=recorded.steering,
        session=recorded.session,
        draw=recorded.draw,
    )


def _without_strangers(facts: RequestFacts, routing: Routing) -> RequestFacts:
    """Leave the end user out unless some rule looks at users, which then decides on the name."""
    if facts.user is None or any(rule.when.users is not None for rule in routing.rules):
        return facts
    return msgspec.structs.replace(facts, user=None)


def _asked(target: Target) -> str:
    match target:
        case TierTarget(tier):
            return f"tier:{tier}"
        case DeploymentTarget(deployment):
            return f"deployment:{deployment}"
        case AutoTarget(held_out=True):
            return "holdout"
        case _:
            return "auto"


def _target(asked: str) -> Target:
    kind, _, name = asked.partition(":")
    match kind:
        case "tier":
            return TierTarget(name)
        case "deployment":
            return DeploymentTarget(name)
        case "holdout":
            return AutoTarget(held_out=True)
        case _:
            return AutoTarget()
