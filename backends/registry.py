"""Every deployment with its price, its health and what was learned of it; a breaker takes failing ones out.

Five failures in a row open the breaker for ten seconds; after that each further failure opens it again, and one
success closes it. A missed deadline is a failure only where the deployment had far more time than it usually needs
for as much: a tenant whose SLA no deployment could meet must not take it away from everyone else.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from backends.latency import Flight, LatencyTracker
from backends.protocol import Backend
from core.clock import Clock
from core.endpoints import CHAT_ALONE
from core.money import Price
from core.plan import DeploymentSnapshot, Readiness, RegistrySnapshot
from core.trace import Attempt, AttemptOutcome

FAILURES_TO_OPEN = 5
OPEN_S = 10.0
LEARNING_RATE = 0.1
POLL_S = 0.05
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

    `ask_usage` adds `stream_options.include_usage` to streams; who refuses that field is billed by estimate. `wanted`
    wakes it. `salt` makes of a tenant the `cache_salt` by which the server keeps tenants' prefixes apart; None sends
    none.
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
    readiness: Callable[[], Readiness] = always_ready
    retry_after_s: Callable[[], float] = no_wait_s
    wanted: Callable[[], None] = nobody_sleeps
    salt: Callable[[str], str] | None = None
    expected_output_tokens: float = 256.0
    ms_per_output_token: float | None = None
    usual_first_byte_ms: float | None = None
    usual_total_ms: float | None = None
    failures_in_a_row: int = 0
    open_until_s: float = 0.0
    latency: LatencyTracker = field(default_factory=LatencyTracker)


class Registry:
    """Knows the deployments and tiers; hands out frozen snapshots and learns from finished attempts."""

    def __init__(
        self, deployments: Mapping[str, Deployment], tiers: Mapping[str, tuple[str, ...]], clock: Clock
    ) -> None:
        self._deployments = deployments
        self._tiers = tiers
        self._clock = clock

    def __getitem__(self, name: str) -> Deployment:
        return self._deployments[name]

    @property
    def tiers(self) -> Mapping[str, tuple[str, ...]]:
        """Return the deployments of every tier, cheapest tier first."""
        return self._tiers

    def snapshot(self) -> RegistrySnapshot:
        """Return every deployment as the planner sees it now."""
        return RegistrySnapshot(
            {name: self._snapshot_of(deployment) for name, deployment in self._deployments.items()}, self._tiers
        )

    def readiness_of(self, name: str) -> Readiness:
        """Return a deployment's own readiness, or DOWN while its breaker is open."""
        deployment = self._deployments[name]
        readiness = deployment.readiness()
        if readiness is Readiness.READY and self._clock.monotonic_s() < deployment.open_until_s:
            return Readiness.DOWN
        return readiness

    def want(self, tier: str | None = None) -> None:
        """Wake what sleeps in a tier, or everywhere when a request found nothing that may answer."""
        for name in self._deployments if tier is None else self._tiers.get(tier, ()):
            self._deployments[name].wanted()

    async def wait_ready(self, name: str, timeout_s: float) -> bool:
        """Wait until a loading deployment is ready; False when it is not in time."""
        give_up_at_s = self._clock.monotonic_s() + timeout_s
        while self._deployments[name].readiness() is Readiness.LOADING:
            if self._clock.monotonic_s() >= give_up_at_s:
                return False
            await asyncio.sleep(POLL_S)
        return self._deployments[name].readiness() is Readiness.READY

    @contextmanager
    def flight(self, name: str, input_tokens: int, *, streamed: bool) -> Iterator[Flight]:
        """Count one attempt as under way at a deployment while the context lasts.

        Args:
            name: the deployment.
            input_tokens: the estimate that forecasts are asked with.
            streamed: whether a stream was asked for; only streams have a first token worth learning.
        """
        latency = self._deployments[name].latency
        flight = latency.begin(input_tokens, streamed=streamed, now_s=self._clock.monotonic_s())
        try:
            yield flight
        finally:
            latency.end(flight)

    def began(self, name: str, flight: Flight) -> None:
        """Learn that an attempt has begun to answer."""
        self._deployments[name].latency.first_byte(flight, self._clock.monotonic_s())

    def learn(self, attempt: Attempt, *, streamed: bool, flight: Flight | None = None) -> None:
        """Take a finished attempt into account; a client that went away says nothing about the deployment.

        Args:
            attempt: one try on one of the deployments.
            streamed: whether a stream was asked for; only streams have a first byte worth learning.
            flight: what `flight` gave for it, from which forecasts are made.
        """
        deployment = self._deployments[attempt.deployment]
        if flight is not None and attempt.outcome is AttemptOutcome.COMPLETE and attempt.usage is not None:
            deployment.latency.complete(flight, attempt.usage.output_tokens, self._clock.monotonic_s())
        if _is_fault(deployment, attempt, streamed=streamed):
            deployment.failures_in_a_row += 1
            if deployment.failures_in_a_row >= FAILURES_TO_OPEN:
                deployment.open_until_s = self._clock.monotonic_s() + OPEN_S
        elif attempt.outcome is AttemptOutcome.COMPLETE:
            deployment.failures_in_a_row = 0
            deployment.open_until_s = 0.0
            _learn_times(deployment, attempt, streamed=streamed)
            _learn_output(deployment, attempt)

    async def close(self) -> None:
        """Close every backend."""
        for deployment in self._deployments.values():
            await deployment.backend.close()

    def _snapshot_of(self, deployment: Deployment) -> DeploymentSnapshot:
        return DeploymentSnapshot(
            name=deployment.name,
            model=deployment.model,
            price=deployment.price,
            readiness=self.readiness_of(deployment.name),
            context_tokens=deployment.context_tokens,
            max_output_tokens=deployment.max_output_tokens,
            serves=deployment.serves,
            expected_output_tokens=max(1, round(deployment.expected_output_tokens)),
            retry_after_s=max(deployment.retry_after_s(), deployment.open_until_s - self._clock.monotonic_s()),
            forecast=deployment.latency.forecast(self._clock.monotonic_s()),
        )


def _is_fault(deployment: Deployment, attempt: Attempt, *, streamed: bool) -> bool:
    if attempt.outcome is AttemptOutcome.TIMED_OUT:
        return attempt.ended_ms - attempt.started_ms > _patience_ms(deployment, attempt, streamed=streamed)
    return attempt.outcome in FAULTS or (attempt.http_status or 0) >= 500


def _patience_ms(deployment: Deployment, attempt: Attempt, *, streamed: bool) -> float:
    """Return how long this attempt may have run before the deployment is to blame for the deadline it missed.

    A stream is judged by its first byte until that has come, then also by the pace of what it produced; a plain
    answer by the usual total. The factor leaves room for long prompts and answers.
    """
    usual_ms = deployment.usual_first_byte_ms if streamed else deployment.usual_total_ms
    if usual_ms is None:
        return UNLEARNED_PATIENCE_MS
    if attempt.first_byte_ms is not None and attempt.usage is not None:
        usual_ms += attempt.usage.output_tokens * (deployment.ms_per_output_token or 0.0)
    return max(LEAST_PATIENCE_MS, PATIENCE * usual_ms)


def _learn_times(deployment: Deployment, attempt: Attempt, *, streamed: bool) -> None:
    deployment.usual_total_ms = _moved(deployment.usual_total_ms, attempt.ended_ms - attempt.started_ms)
    if streamed and attempt.first_byte_ms is not None:
        first_byte_ms = attempt.first_byte_ms - attempt.started_ms
        deployment.usual_first_byte_ms = _moved(deployment.usual_first_byte_ms, first_byte_ms)


def _moved(known: float | None, seen: float) -> float:
    """Return the moving average with one more value."""
    return seen if known is None else known + LEARNING_RATE * (seen - known)


def _learn_output(deployment: Deployment, attempt: Attempt) -> None:
    if attempt.usage is None or attempt.usage.output_tokens == 0 or attempt.usage_source != "reported":
        return
    tokens = attempt.usage.output_tokens
    deployment.expected_output_tokens = _moved(deployment.expected_output_tokens, tokens)
    took_ms = attempt.ended_ms - attempt.started_ms
    deployment.ms_per_output_token = _moved(deployment.ms_per_output_token, took_ms / tokens)
