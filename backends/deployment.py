"""One reachable model as the registry keeps it: what the operator said of it, its health, and what was learned."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from backends.gate import Gate
from backends.health import Health
from backends.latency import LatencyTracker
from backends.protocol import Backend
from backends.served_model import ModelCheck
from core.endpoints import CHAT_ALONE
from core.money import Price
from core.plan import TEXT_ALONE, Abilities, Readiness
from core.trace import Attempt, AttemptOutcome

LEARNING_RATE = 0.1
FAULTS = frozenset({AttemptOutcome.FAILED, AttemptOutcome.BROKEN_OFF})
PATIENCE = 4.0
LEAST_PATIENCE_MS = 1_000.0
UNLEARNED_PATIENCE_MS = 10_000.0


def always_ready() -> Readiness:
    """Report a deployment that nobody supervises as ready."""
    return Readiness.READY


def nobody_sleeps() -> None:
    """Do nothing: a deployment that nobody supervises cannot be woken."""


def no_wait_s() -> float:
    """Report that there is nothing to wait for."""
    return 1.0


@dataclass(slots=True)
class Deployment:
    """One reachable model with a price, the backend that talks to it, and its recent history.

    Attributes:
        ask_usage: add `stream_options.include_usage` to streams; who refuses that field is billed by estimate.
        drain_s: how long to go on reading after a client went away, to learn what a provider bills anyway; 0 cancels.
        wanted: wakes it.
        salt: makes of a tenant the `cache_salt` by which the server keeps tenants' prefixes apart; None sends none.
        model_check: which names in an answer mean `model`, and whether another is an error.
        probe: asks whether the deployment answers again before a request is risked; None where somebody supervises it.
    """

    name: str
    model: str
    price: Price
    backend: Backend
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    local: bool = False
    ask_usage: bool = True
    serves: frozenset[str] = CHAT_ALONE
    abilities: Abilities = TEXT_ALONE
    readiness: Callable[[], Readiness] = always_ready
    retry_after_s: Callable[[], float] = no_wait_s
    wanted: Callable[[], None] = nobody_sleeps
    salt: Callable[[str], str] | None = None
    drain_s: float = 0.0
    probe: Callable[[], Awaitable[bool]] | None = None
    model_check: ModelCheck = field(default_factory=ModelCheck)
    expected_output_tokens: float = 256.0
    ms_per_output_token: float | None = None
    usual_first_byte_ms: float | None = None
    usual_total_ms: float | None = None
    health: Health = field(default_factory=Health)
    latency: LatencyTracker = field(default_factory=LatencyTracker)
    gate: Gate = field(default_factory=Gate)

    def is_fault(self, attempt: Attempt, *, streamed: bool) -> bool:
        """Tell whether an attempt failed by the deployment's own fault.

        A missed deadline is one only where the deployment had far more time than it usually needs for as much: a
        tenant whose SLA no deployment could meet must not take it away from everyone else. A refused key (401), a
        redirect and a success without an answer are the deployment's, too: no caller can bring them about.
        """
        if attempt.outcome is AttemptOutcome.TIMED_OUT:
            return attempt.ended_ms - attempt.started_ms > self._patience_ms(attempt, streamed=streamed)
        status = attempt.http_status or 0
        return attempt.outcome in FAULTS or status >= 500 or status == 401 or 200 < status < 400

    def learn(self, attempt: Attempt, *, streamed: bool) -> None:
        """Learn from a complete attempt what is usual."""
        took_ms = attempt.ended_ms - attempt.started_ms
        self.usual_total_ms = _moved(self.usual_total_ms, took_ms)
        if streamed and attempt.first_byte_ms is not None:
            self.usual_first_byte_ms = _moved(self.usual_first_byte_ms, attempt.first_byte_ms - attempt.started_ms)
        if attempt.usage is not None and attempt.usage.output_tokens > 0 and attempt.usage_source == "reported":
            tokens = attempt.usage.output_tokens
            self.expected_output_tokens = _moved(self.expected_output_tokens, tokens)
            self.ms_per_output_token = _moved(self.ms_per_output_token, took_ms / tokens)

    def _patience_ms(self, attempt: Attempt, *, streamed: bool) -> float:
        """Return how long this attempt may have run before the deployment is to blame for the deadline it missed.

        A stream is judged by its first byte until that has come, then also by the pace of what it produced; a plain
        answer by the usual total. The factor leaves room for long prompts and answers.
        """
        usual_ms = self.usual_first_byte_ms if streamed else self.usual_total_ms
        if usual_ms is None:
            return UNLEARNED_PATIENCE_MS
        if attempt.first_byte_ms is not None and attempt.usage is not None:
            usual_ms += attempt.usage.output_tokens * (self.ms_per_output_token or 0.0)
        return max(LEAST_PATIENCE_MS, PATIENCE * usual_ms)


def _moved(known: float | None, seen: float) -> float:
    """Return the moving average with one more value."""
    return seen if known is None else known + LEARNING_RATE * (seen - known)
