"""The values that decisions are made of: complexity, standing, the registry's snapshot, and the plan."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import msgspec

from core.endpoints import CHAT_ALONE
from core.facts import Script
from core.money import Price
from core.rules import WhenExhausted
from core.weighing import Weighing


class Complexity(msgspec.Struct, frozen=True, gc=False):
    """How hard a request is, as far as its text tells.

    Attributes:
        p_small_suffices: P(the small tier suffices) in [0, 1].
        source: who said so, for example `model:bundled@3f2a` or `prior:no_encoder`.
        expected_output_tokens: what an answer of the cheapest and of the dearest tier is expected to hold; None where
            the weights know no lengths, and the deployments' own expectation counts.
        cut_chars: characters of the text that were too many to be looked at.
    """

    p_small_suffices: float
    source: str
    expected_output_tokens: tuple[int, int] | None = None
    cut_chars: int = 0

    @property
    def value(self) -> float:
        """Return the complexity in [0, 1]."""
        return 1.0 - self.p_small_suffices


class Spending(msgspec.Struct, frozen=True, gc=False):
    """One hard budget of all tiers in its present window, for those who pace it.

    Attributes:
        account: whose budget it is; unique among the tenant's.
        ends_at: the end of a calendar window; of a rolling one, when what is spent now is forgotten.
        limit_nano_usd: the policy's limit plus what was granted.
    """

    account: str
    starts_at: datetime
    ends_at: datetime
    limit_nano_usd: int
    spent_nano_usd: int
    rolling: bool = False


class Standing(msgspec.Struct, frozen=True, gc=False):
    """What the ledger says of a caller at admission; `free_nano_usd` is None without any budget.

    `free_by_tier` holds what budgets of one tier alone leave for that tier; `spending` each hard budget of all tiers.
    """

    free_nano_usd: int | None = None
    when_exhausted: WhenExhausted = "reject"
    resets_at: datetime | None = None
    free_by_tier: Mapping[str, int] = {}
    spending: tuple[Spending, ...] = ()


class Readiness(StrEnum):
    """Whether a deployment can answer now."""

    READY = "ready"
    LOADING = "loading"
    DOWN = "down"


class LatencyForecast(msgspec.Struct, frozen=True, gc=False):
    """What one more request may expect of a deployment now, in milliseconds, linear in its tokens.

    Attributes:
        queue_ms: the wait before the deployment begins with it.
        base_ms: from then to the first token of an empty prompt.
        ms_per_input_token: what each token of the prompt adds to that.
        ms_per_output_token: the gap between tokens (TPOT).
    """

    queue_ms: float = 0.0
    base_ms: float = 0.0
    ms_per_input_token: float = 0.0
    ms_per_output_token: float = 0.0

    def ttft_ms(self, input_tokens: int) -> float:
        """Return the expected time to the first token."""
        return self.queue_ms + self.base_ms + self.ms_per_input_token * input_tokens

    def total_ms(self, input_tokens: int, output_tokens: int) -> float:
        """Return the expected time to the last token: that to the first and every gap between tokens."""
        ttft_ms = self.queue_ms + self.base_ms + self.ms_per_input_token * input_tokens
        return ttft_ms + self.ms_per_output_token * output_tokens


@dataclass(frozen=True, slots=True)
class Abilities:
    """What a deployment was measured on, or its operator vouches for; the dearest tier is never asked.

    Attributes:
        tools, json, media: whether it calls tools, keeps to a JSON format, takes images and audio.
        scripts: the scripts of the languages that it was measured in.
        measured_context_tokens: the longest prompt that it was measured on; None means its whole window.
    """

    tools: bool = False
    json: bool = False
    media: bool = False
    scripts: tuple[Script, ...] = ("latin",)
    measured_context_tokens: int | None = None


TEXT_ALONE = Abilities()
"""What is assumed of a deployment that nobody said anything of."""


class DeploymentSnapshot(msgspec.Struct, frozen=True, gc=False):
    """One deployment as the planner sees it; `forecast` is None until it has answered often enough to have one.

    `serves` are the paths that it answers, `local` tells an engine of this gateway's own from what runs elsewhere.
    """

    name: str
    model: str
    price: Price
    readiness: Readiness
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    expected_output_tokens: int = 256
    retry_after_s: float = 1.0
    forecast: LatencyForecast | None = None
    serves: frozenset[str] = CHAT_ALONE
    abilities: Abilities = TEXT_ALONE
    local: bool = False


class RegistrySnapshot(msgspec.Struct, frozen=True, gc=False):
    """All deployments, and the tiers (cheapest first) as ordered deployment names."""

    deployments: Mapping[str, DeploymentSnapshot]
    tiers: Mapping[str, tuple[str, ...]]

    def tier_of(self, deployment: str) -> str:
        """Return the first tier that lists `deployment`, or `direct` when none does."""
        for tier, names in self.tiers.items():
            if deployment in names:
                return tier
        return "direct"


def tier_states(snapshot: RegistrySnapshot) -> dict[str, str]:
    """Return each tier's best state; a tier without deployments is down."""
    best_first = list(Readiness)
    return {
        tier: min(
            (snapshot.deployments[name].readiness for name in names), key=best_first.index, default=Readiness.DOWN
        ).value
        for tier, names in snapshot.tiers.items()
    }


class Reason(StrEnum):
    """The binding reason of a plan: the one token of `x-headgate-reason`."""

    REQUESTED = "requested"
    RULE = "rule"
    SESSION = "session"
    CASCADE = "cascade"
    SCORE = "score"
    SHARE = "share"
    COST = "cost"
    LATENCY = "latency"
    PACE = "pace"
    EXPLORE = "explore"
    GUARD_TOOLS = "guard_tools"
    GUARD_JSON = "guard_json"
    GUARD_MEDIA = "guard_media"
    GUARD_CONTEXT = "guard_context"
    GUARD_LANGUAGE = "guard_language"
    BUDGET = "budget"
    LOADING = "loading"
    UNHEALTHY = "unhealthy"
    PRIOR = "prior"
    HOLDOUT = "holdout"
    CACHE = "cache"


class PlannedStep(msgspec.Struct, frozen=True, gc=False):
    """One deployment to try, in which tier's name, with its worst-case cost and the output cap that bounds it.

    `max_tokens` bounds the worst case; `sent_max_tokens` is what goes upstream in place of the client's own limit, or
    None to leave the request as it is.
    """

    deployment: str
    tier: str
    max_tokens: int
    sent_max_tokens: int | None
    worst_case_nano_usd: int
    input_nano_usd: int


class Plan(msgspec.Struct, frozen=True, gc=False):
    """Deployments in the order they are tried, why the first one is first, and what it was weighed against.

    `escalates_to` is the index of the step that answers when the first one's answer does not stand verification.
    """

    steps: tuple[PlannedStep, ...]
    reason: Reason
    tier: str
    degraded_from: str | None = None
    weighing: Weighing | None = None
    escalates_to: int | None = None

    @property
    def gave_up_quality(self) -> bool:
        """Tell whether latency or the budget's pace chose a deployment that is predicted to fall short of the floor."""
        if self.weighing is None or self.reason not in (Reason.LATENCY, Reason.PACE):
            return False
        quality = self.weighing.of(self.steps[0].deployment, self.tier).predicted_quality
        return quality is not None and quality < self.weighing.floor

    @property
    def has_given_way(self) -> bool:
        """Tell whether it is not what was wanted, for money, time, health or to explore; its answer is not stored."""
        return self.degraded_from is not None or self.reason in (Reason.BUDGET, Reason.EXPLORE) or self.gave_up_quality

    @property
    def worst_case_nano_usd(self) -> int:
        """Return what the plan can cost: the dearest step in full, and the input of every other step.

        A step that failed before its first byte is billed for its input at most. Of a plan that may escalate, both
        the first step and the one that it escalates to may cost everything.
        """
        if self.escalates_to is not None:
            full = (self.steps[0], self.steps[self.escalates_to])
            others = sum(step.input_nano_usd for step in self.steps if step not in full)
            return sum(step.worst_case_nano_usd for step in full) + others
        return worst_case_of(self.steps)


def worst_case_of(steps: Sequence[PlannedStep]) -> int:
    """Return what steps tried one after the other can cost: the dearest in full, and the input of every other one."""
    if len(steps) == 1:
        return steps[0].worst_case_nano_usd
    input_nano_usd = most_above_nano_usd = 0
    for step in steps:
        input_nano_usd += step.input_nano_usd
        above_nano_usd = step.worst_case_nano_usd - step.input_nano_usd
        if above_nano_usd > most_above_nano_usd:
            most_above_nano_usd = above_nano_usd
    return input_nano_usd + most_above_nano_usd
