"""The frozen record of one request, from which every log line, metric, span and request-log row is made."""

from datetime import datetime
from enum import StrEnum
from typing import Literal, Protocol

import msgspec

from core.money import Usage

CacheOutcome = Literal["exact", "semantic", "joined", "miss", "bypass"]
UsageSource = Literal["reported", "estimated", "none"]
SHADOW_PATH = "shadow:"
"""How the path of a trace begins that no client asked for; what it was for follows."""


class AttemptOutcome(StrEnum):
    """How one try on one deployment ended.

    GIVEN_UP is a deadline that the caller itself had set; OUTRUN gave way to another attempt that answered first.
    """

    COMPLETE = "complete"
    REFUSED = "refused"
    FAILED = "failed"
    BROKEN_OFF = "broken_off"
    TIMED_OUT = "timed_out"
    GIVEN_UP = "given_up"
    CLIENT_GONE = "client_gone"
    OUTRUN = "outrun"


class AttemptKind(StrEnum):
    """Why an attempt was made."""

    FIRST = "first"
    FALLBACK = "fallback"
    RETRY = "retry"
    HEDGE = "hedge"
    ESCALATION = "escalation"


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One try on one deployment; times are milliseconds since the request was received.

    `other_model` is the model that answered, where it is another than `model`, which was asked.
    """

    n: int
    deployment: str
    tier: str
    model: str
    started_ms: float
    first_byte_ms: float | None
    ended_ms: float
    outcome: AttemptOutcome
    http_status: int | None
    usage: Usage | None
    usage_source: UsageSource
    cost_nano_usd: int
    error: str | None = None
    kind: AttemptKind = AttemptKind.FIRST
    other_model: str | None = None


class Content(msgspec.Struct, frozen=True, gc=False):
    """What was said, where the tenant's policy lets it be recorded: the raw JSON of the messages, and the answer.

    Both are as they came; whoever shows them redacts and bounds them. `answer` is None where it is not plain text.
    """

    messages: bytes
    answer: str | None
    finish_reason: str | None

    def __repr__(self) -> str:
        """Show no text."""
        return f"Content(finish_reason={self.finish_reason!r})"


class Trial(msgspec.Struct, frozen=True, gc=False):
    """A request's part in the comparison with the baseline path.

    Attributes:
        held_out: whether it took that path.
        per_10k: how many of 10,000 eligible requests do, by the policy in force.
    """

    held_out: bool
    per_10k: int


class RequestTrace(msgspec.Struct, frozen=True, gc=False):
    """Everything worth telling about one request; no key, and no text unless the tenant's policy asks for it.

    A struct, since a frozen dataclass of so many fields takes several microseconds more to make; by position where
    each request makes one, since a struct looks for every name among all of its fields (7 us, in place of 0.1).
    `baseline_nano_usd` is what the same tokens cost at the dearest tier without a cache, None where nobody knows.
    `shadow_price_per_usd` is the gain in predicted quality that a USD had to bring, None where nothing was weighed.
    `sla_ttft_ms` and `sla_total_ms` are the limits that the request was held to, None where there was none.
    `free_nano_usd` is what the tightest budget left when the plan was made, None without a budget or a plan.
    `candidates` are the deployments that were weighed; `session_id` is the keyed digest of the conversation.
    `lost_prefix_nano_usd` is what a session's move to another deployment lost of its cached prefix, by the prices.
    `trial` is None where the request was not eligible for the holdout.
    """

    request_id: str
    received_at: datetime
    tenant: str
    key_id: str
    path: str
    model_alias: str
    stream: bool
    status: int
    error_code: str | None
    cache: CacheOutcome
    cache_detail: str
    similarity: float | None
    tier: str | None
    deployment: str | None
    reason: str | None
    degraded_from: str | None
    p_small_suffices: float | None
    complexity_source: str | None
    policy_version: str | None
    attempts: tuple[Attempt, ...]
    usage: Usage | None
    cost_nano_usd: int
    saved_nano_usd: int
    reserved_nano_usd: int
    ttft_ms: float | None
    total_ms: float
    overhead_ms: float
    sla_violated: bool
    traceparent: str | None = None
    queued_ms: float = 0.0
    baseline_nano_usd: int | None = None
    shadow_price_per_usd: float | None = None
    sla_ttft_ms: float | None = None
    sla_total_ms: float | None = None
    free_nano_usd: int | None = None
    candidates: tuple[str, ...] = ()
    session_id: str | None = None
    cache_age_s: float | None = None
    max_tokens: int | None = None
    content: Content | None = None
    lost_prefix_nano_usd: int = 0
    trial: Trial | None = None

    @property
    def is_sla_judged(self) -> bool:
        """Whether there was a limit that the request could miss."""
        return self.sla_ttft_ms is not None or self.sla_total_ms is not None

    @property
    def is_shadow(self) -> bool:
        """Whether the gateway asked by itself: it costs like a request, and is none of any client's."""
        return self.path.startswith(SHADOW_PATH)


class TraceSink(Protocol):
    """A consumer of finished traces; it never blocks and never raises into the request."""

    def record(self, trace: RequestTrace) -> None:
        """Take one finished trace."""
        ...
