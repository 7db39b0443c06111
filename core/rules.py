"""What a tenant may do, as frozen values: the policy in force, and the part that applies to one request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from zoneinfo import ZoneInfo

import msgspec

from core.facts import ResponseFormat, Script

WindowKind = Literal["minute", "hour", "day", "week", "month"]
WhenExhausted = Literal["reject", "small_only", "cache_only"]
BudgetScope = Literal["tenant", "key", "user"]
WhenLoading = Literal["small", "remote", "wait", "refuse"]
OnStoreOutage = Literal["closed", "open", "local_share"]
ServiceClass = Literal["interactive", "batch"]
Wish = Literal["quality", "cost", "latency"]
DEFAULT_GIVE_WAY: tuple[Wish, ...] = ("quality", "cost", "latency")
Promotion = Literal["automatic", "manual"]
Priority = Literal["high", "normal", "low"]
WhenLate = Literal["move", "queue", "shed"]


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit in nano-USD per window: a calendar window of an IANA zone, or the last such length of time (`rolling`).

    Attributes:
        per: who has the limit for itself: the tenant, each API key, or each end user (the request's `user`).
        tier: count the cost of this tier alone.
        soft: never refuses and never steps down; it only raises its alerts.
        alerts_percent: whole percents of the limit at which an alert is raised, once a window.
    """

    window: WindowKind
    zone: ZoneInfo
    limit_nano_usd: int
    when_exhausted: WhenExhausted
    per: BudgetScope = "tenant"
    tier: str | None = None
    rolling: bool = False
    soft: bool = False
    alerts_percent: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """Rate limits; None means unlimited."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None

    @property
    def is_unlimited(self) -> bool:
        """Tell whether nothing is limited."""
        return self.requests_per_minute is None and self.tokens_per_minute is None and self.concurrency is None


@dataclass(frozen=True, slots=True)
class Sla:
    """Latency limits of one tier for one tenant; None means unlimited.

    `when_late` says what happens to a request that cannot make it: `move` to another deployment of its plan, `queue`
    for its own, or `shed` at once. `objective_ratio` is the share of requests that shall keep the limits.
    """

    ttft_ms: int | None = None
    total_ms: int | None = None
    min_output_tokens_per_s: float | None = None
    idle_ms: int | None = None
    when_late: WhenLate = "move"
    objective_ratio: float = 0.99


NO_SLA = Sla()


@dataclass(frozen=True, slots=True)
class RuleCondition:
    """Declared facts that must all hold; None leaves a fact open, and of several values one is enough.

    Names of models, users and paths are whole, or a beginning when they end in `*`.
    """

    tools: bool | None = None
    media: bool | None = None
    stream: bool | None = None
    response_format: tuple[ResponseFormat, ...] | None = None
    min_context_tokens: int | None = None
    max_context_tokens: int | None = None
    script: tuple[Script, ...] | None = None
    min_non_latin_ratio: float | None = None
    tags: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    users: tuple[str, ...] | None = None
    paths: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """Who answers a request that fits the condition: a tier, or deployments in the order in which they are tried."""

    name: str
    when: RuleCondition
    use: str | tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SessionRules:
    """How conversations keep their tier.

    Attributes:
        ttl_s: how long after its last turn a session is remembered.
        downgrade_after: easy turns in a row before a session may go to a cheaper tier.
        follow_up_chars: a user turn of at most so many characters inherits the tier.
    """

    enabled: bool = True
    ttl_s: int = 1_800
    downgrade_after: int = 3
    follow_up_chars: int = 60


@dataclass(frozen=True, slots=True)
class CascadeRules:
    """When the cheapest tier is tried first and its answer verified.

    Attributes:
        from_p, to_p: the band of P(small suffices) in which that is worth it: below, the small answer rarely will do;
            above, it needs no verification.
        max_cost_ratio: expected cost of the small step over that of the one above, beyond which trying costs too much.
        min_margin: the least mean difference in probability between the two likeliest tokens.
    """

    enabled: bool = False
    from_p: float = 0.3
    to_p: float = 0.8
    max_cost_ratio: float = 0.2
    min_margin: float = 0.2


@dataclass(frozen=True, slots=True)
class Routing:
    """How the choice of tier is steered: rules first, then at most one knob; without one, `quality` 0.5 applies.

    `quality` is the least P(small suffices) at which the small tier is chosen. Of `rules`, the first that fits wins.
    Where no tier meets quality, the pace of the budget (`cost`) and the SLA (`latency`) at once, they give way in the
    order of `give_way`. `holdout_ratio` is the share of eligible requests that take the baseline path, for comparison.

    Attributes:
        explore_ratio: the share of freely chosen requests that is given to another tier, to learn from.
        shadow_ratio: the share of answers that is compared with the other tier's, asked in the background.
        shadow_budget_nano_usd: what those comparisons may cost a day (UTC).
        learn_from_retries: whether a question that is soon asked again speaks against its first answer.
        promotion: whether a learned router takes over by itself once its evidence suffices, or by command.
    """

    quality: float | None = None
    max_large_share: float | None = None
    target_cost_nano_usd: int | None = None
    rules: tuple[RoutingRule, ...] = ()
    give_way: tuple[Wish, ...] = DEFAULT_GIVE_WAY
    sessions: SessionRules = SessionRules()
    cascade: CascadeRules = CascadeRules()
    holdout_ratio: float = 0.0
    explore_ratio: float = 0.0
    shadow_ratio: float = 0.0
    shadow_budget_nano_usd: int = 0
    learn_from_retries: bool = True
    promotion: Promotion = "automatic"

    @property
    def learns(self) -> bool:
        """Tell whether the tenant's own outcomes are learned from."""
        return self.explore_ratio > 0.0 or self.shadow_ratio > 0.0


@dataclass(frozen=True, slots=True)
class PolicyExample:
    """A request with which a tenant tests its own rules, and what is expected of it; None expects nothing.

    `body` is a chat request as JSON, `tags` what the header would say.
    """

    body: bytes
    tags: tuple[str, ...] = ()
    tier: str | None = None
    deployment: str | None = None
    rule: str | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class CacheRules:
    """What the semantic cache may do for a tenant; `max_false_hit_rate` is false hits / requests."""

    enabled: bool = True
    semantic: bool = True
    per_user: bool = False
    max_false_hit_rate: float = 0.005
    shadow_ratio: float = 0.0
    ttl_s: int = 86_400
    expose_details: bool = True
    exact_only_until_calibrated: bool = False


@dataclass(frozen=True, slots=True)
class TenantPolicy:
    """One tenant's rules; `version` is a digest of everything that can change an answer or a price.

    `models` maps names that apps send to a target: `auto`, a tier or a deployment.
    `tiers` and `deployments` list what the tenant may name directly. `limits` are the tenant's, `key_limits` those of
    each key. `examples` test the policy and change nothing, so they are no part of its version. `record_content` lets
    messages and answers into traces, where they are asked for.
    """

    tenant: str
    version: str
    models: Mapping[str, str]
    tiers: tuple[str, ...]
    deployments: frozenset[str]
    budgets: tuple[Budget, ...]
    limits: Limits
    service_class: ServiceClass
    sla: Mapping[str, Sla]
    routing: Routing
    cache: CacheRules
    max_output_tokens: int | None
    on_store_outage: OnStoreOutage
    when_loading: WhenLoading
    fallback: bool
    key_limits: Limits = Limits()
    priority: Priority = "normal"
    examples: tuple[PolicyExample, ...] = ()
    record_content: bool = False


class AutoTarget(msgspec.Struct, frozen=True, gc=False):
    """The router decides; a request that is `held_out` for comparison takes the baseline path instead."""

    held_out: bool = False


class TierTarget(msgspec.Struct, frozen=True, gc=False):
    """The caller named a tier."""

    tier: str


class DeploymentTarget(msgspec.Struct, frozen=True, gc=False):
    """The caller named a deployment that the policy grants."""

    deployment: str


class RuledTarget(msgspec.Struct, frozen=True, gc=False):
    """The caller left the choice to the router, and a rule of the policy made it."""

    rule: str
    use: str | tuple[str, ...]

    def includes(self, tier: str, deployment: str) -> bool:
        """Tell whether an answer of this tier and deployment is what the rule asks for."""
        return tier == self.use if isinstance(self.use, str) else deployment in self.use


Target = AutoTarget | TierTarget | DeploymentTarget | RuledTarget


@dataclass(frozen=True, slots=True)
class EffectivePolicy:
    """The tenant's policy together with what the requested model name means under it."""

    tenant_policy: TenantPolicy
    alias: str
    target: Target
