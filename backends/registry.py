"""Every deployment with its price, its health and what was learned of it, as frozen snapshots for the planner."""

import asyncio
import random
from collections.abc import Iterator, Mapping

from backends.deployment import Deployment, nobody_sleeps
from backends.latency import Flight
from backends.selection import has_equals, ordered
from core.clock import Clock
from core.plan import DeploymentSnapshot, Readiness, RegistrySnapshot
from core.trace import Attempt, AttemptKind, AttemptOutcome

POLL_S = 0.05
OVERLOADED = frozenset({429, 503, 529})
PROBE_EVERY_S = 1.0
PROBE_BEFORE_S = 2.5


class Registry:
    """Knows the deployments and tiers; hands out frozen snapshots and learns from finished attempts."""

    def __init__(
        self,
        deployments: Mapping[str, Deployment],
        tiers: Mapping[str, tuple[str, ...]],
        clock: Clock,
        rng: random.Random | None = None,
    ) -> None:
        """Draw the choices among equal deployments from `rng`."""
        self._deployments = deployments
        self._tiers = tiers
        self._snapshots: dict[str, tuple[object, DeploymentSnapshot]] = {}
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - spreads load, guards nothing

    def __getitem__(self, name: str) -> Deployment:
        return self._deployments[name]

    @property
    def tiers(self) -> Mapping[str, tuple[str, ...]]:
        """Return the deployments of every tier, cheapest tier first."""
        return self._tiers

    def __iter__(self) -> Iterator[Deployment]:
        return iter(self._deployments.values())

    def snapshot(self, affinity: bytes | None = None) -> RegistrySnapshot:
        """Return every deployment as the planner sees it now, each tier in the order to try.

        Args:
            affinity: what requests that should meet the same engine have in common, if anything.
        """
        now_s = self._clock.monotonic_s()
        deployments = {name: self._snapshot_of(deployment, now_s) for name, deployment in self._deployments.items()}
        drawn = {}
        for tier, names in self._tiers.items():
            if len(names) > 1 and has_equals(names, self._deployments):
                drawn[tier] = ordered(names, self._deployments, deployments, now_s, self._rng, affinity)
        return RegistrySnapshot(deployments, {**self._tiers, **drawn} if drawn else self._tiers)

    def readiness_of(self, name: str) -> Readiness:
        """Return a deployment's own readiness, or DOWN while its breaker is open or it cools down."""
        return _readiness_at(self._deployments[name], self._clock.monotonic_s())

    def usual_output_tokens(self, name: str) -> int:
        """Return how long a deployment's answers usually are, in tokens; 1 while nothing is known."""
        return self._deployments[name].latency.usual_output_tokens(self._clock.monotonic_s())

    def want(self, tier: str | None = None) -> None:
        """Wake what sleeps in a tier, or everywhere when a request found nothing that may answer."""
        for name in self._deployments if tier is None else self._tiers.get(tier, ()):
            wake = self._deployments[name].wanted
            if wake is not nobody_sleeps:
                wake()

    async def wait_ready(self, name: str, timeout_s: float) -> bool:
        """Wait until a loading deployment is ready; False when it is not in time."""
        give_up_at_s = self._clock.monotonic_s() + timeout_s
        while self._deployments[name].readiness() is Readiness.LOADING:
            if self._clock.monotonic_s() >= give_up_at_s:
                return False
            await asyncio.sleep(POLL_S)
        return self._deployments[name].readiness() is Readiness.READY

    def take_off(self, name: str, input_tokens: int, *, streamed: bool) -> Flight:
        """Count one attempt as under way at a deployment until it lands.

        Args:
            name: the deployment.
            input_tokens: the estimate that forecasts are asked with.
            streamed: whether a stream was asked for; only streams have a first token worth learning.
        """
        deployment, now_s = self._deployments[name], self._clock.monotonic_s()
        flight = deployment.latency.begin(input_tokens, streamed=streamed, now_s=now_s)
        flight.is_trial = deployment.health.begin(now_s)
        return flight

    def land(self, name: str, flight: Flight) -> None:
        """Say that an attempt is no longer under way, however it ended; called once."""
        self._deployments[name].latency.end(flight)

    def began(self, name: str, flight: Flight) -> None:
        """Learn that an attempt has begun to answer."""
        self._deployments[name].latency.first_byte(flight, self._clock.monotonic_s())

    def learn(self, attempt: Attempt, *, streamed: bool, flight: Flight | None = None, rests: bool = False) -> None:
        """Take a finished attempt into account; a client that went away says nothing about the deployment.

        Args:
            attempt: one try on one of the deployments.
            streamed: whether a stream was asked for; only streams have a first byte worth learning.
            flight: what `flight` gave for it, from which forecasts are made.
            rests: the deployment said when to come again, which is no fault of its own: it cools down.

        The retries of one request are no further faults, or two unlucky requests would open a breaker.
        """
        deployment, now_s = self._deployments[attempt.deployment], self._clock.monotonic_s()
        if attempt.http_status in OVERLOADED:
            deployment.gate.too_much(now_s)
        if not rests and deployment.is_fault(attempt, streamed=streamed):
            is_trial = flight is not None and flight.is_trial
            if attempt.kind is not AttemptKind.RETRY or is_trial:
                deployment.health.fail(now_s, may_eject=self._has_stand_in(attempt.deployment), is_trial=is_trial)
        elif attempt.outcome is AttemptOutcome.COMPLETE:
            deployment.health.succeed(now_s)
            deployment.gate.succeeded()
            deployment.learn(attempt, streamed=streamed)
            if flight is not None and attempt.usage is not None:
                deployment.latency.complete(flight, attempt.usage.output_tokens, now_s)
        elif flight is not None:
            if flight.is_trial:
                deployment.health.undecided(now_s)
            if attempt.outcome is AttemptOutcome.OUTRUN:
                deployment.latency.outrun(flight, now_s)

    def told(self, name: str, running: float, queued: float) -> None:
        """Take an engine's own word on what is in its batch and what waits for it, for the forecasts."""
        self._deployments[name].latency.told(running, queued, self._clock.monotonic_s())

    def engine_wait_s(self, name: str, now_s: float) -> float:
        """Return how long a deployment's own queue takes, 0 where it tells nothing of one."""
        return self._deployments[name].latency.engine_wait_ms(now_s) / 1000

    def cool(self, name: str, seconds: float) -> None:
        """Send nothing to a deployment for as long as it asked."""
        self._deployments[name].health.cool(seconds, self._clock.monotonic_s())

    async def probe(self) -> None:
        """Ask deployments whose breaker is about to let a request through whether they answer, for ever.

        Who does not is left alone for longer, so that no request is risked; who does gets its trial.
        """
        while True:
            await asyncio.sleep(PROBE_EVERY_S)
            await asyncio.gather(*(self.probe_once(deployment) for deployment in self))

    async def probe_once(self, deployment: Deployment) -> None:
        """Probe one deployment if its breaker is about to let a request through."""
        opens_at_s = deployment.health.open_until_s
        if deployment.probe is None or opens_at_s is None or self._clock.monotonic_s() < opens_at_s - PROBE_BEFORE_S:
            return
        if not await deployment.probe():
            deployment.health.open(self._clock.monotonic_s())

    async def close(self) -> None:
        """Close every backend."""
        for deployment in self._deployments.values():
            await deployment.backend.close()

    def _has_stand_in(self, name: str) -> bool:
        return any(
            other != name and self.readiness_of(other) is Readiness.READY
            for names in self._tiers.values()
            if name in names
            for other in names
        )

    def _snapshot_of(self, deployment: Deployment, now_s: float) -> DeploymentSnapshot:
        """Return the last snapshot as long as it tells the truth; most deployments change with few requests."""
        readiness = deployment.readiness()
        rest_s = deployment.health.retry_after_s(now_s)
        if rest_s and readiness is Readiness.READY:
            readiness = Readiness.DOWN
        retry_after_s = deployment.retry_after_s()
        if rest_s > retry_after_s:
            retry_after_s = rest_s
        forecast = deployment.latency.forecast(now_s)
        truth = (
            readiness, forecast, deployment.expected_output_tokens, retry_after_s, deployment.context_tokens,
            deployment.max_output_tokens, deployment.abilities, deployment.price, deployment.serves,
        )  # fmt: skip
        known = self._snapshots.get(deployment.name)
        if known is not None and known[0] == truth:
            return known[1]
        made = DeploymentSnapshot(
            deployment.name,
            deployment.model,
            deployment.price,
            readiness,
            deployment.context_tokens,
            deployment.max_output_tokens,
            round(deployment.expected_output_tokens) or 1,
            retry_after_s,
            forecast,
            deployment.serves,
            deployment.abilities,
            deployment.local,
        )
        self._snapshots[deployment.name] = truth, made
        return made


def _readiness_at(deployment: Deployment, now_s: float) -> Readiness:
    readiness = deployment.readiness()
    return deployment.health.readiness(now_s) if readiness is Readiness.READY else readiness
