"""Reads every ready engine's own metrics from time to time, off the path of requests, and keeps the last look.

Whoever asks gets what is at hand: `/metrics`, the admin API and the dashboard never wait for an engine. An engine that
does not answer in time, or talks too much, has no figures until it does.
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import httpx

from backends.engines.engine_figures import Figures, read_figures
from backends.engines.recipes import EngineKind
from backends.engines.supervisor import Supervisor
from core.clock import Clock

LOOK_EVERY_S = 2.0
TIMEOUT_S = 1.0
MAX_BYTES = 4 << 20
MOST_REQUESTS = 1e6
Told = Callable[[str, float, float], None]
"""Takes an engine's name, how many requests are in its batch, and how many wait for it."""


def tell_nobody(name: str, running: float, queued: float) -> None:
    """Take an engine's load and do nothing with it."""


@dataclass(frozen=True, slots=True)
class Rates:
    """What lies between two looks; None where nothing happened, or the engine does not tell."""

    output_tokens_per_s: float | None = None
    ttft_ms: float | None = None
    itl_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """The figures of one moment, and what changed since the look before."""

    at_s: float
    generation: int
    figures: Figures
    rates: Rates = Rates()


def rates_between(before: Look, after_s: float, figures: Figures) -> Rates:
    """Return tokens per second, and the mean TTFT and gap of what happened in between."""
    seconds = after_s - before.at_s
    tokens = _grown(before.figures.output_tokens, figures.output_tokens)
    return Rates(
        None if tokens is None or seconds <= 0 else tokens / seconds,
        _mean_ms(before.figures.ttft_s, figures.ttft_s, before.figures.ttft_count, figures.ttft_count),
        _mean_ms(before.figures.itl_s, figures.itl_s, before.figures.itl_count, figures.itl_count),
    )


def _grown(before: float | None, after: float | None) -> float | None:
    return None if before is None or after is None or after < before else after - before


def _mean_ms(
    sum_before: float | None, sum_after: float | None, n_before: float | None, n_after: float | None
) -> float | None:
    total_s, n = _grown(sum_before, sum_after), _grown(n_before, n_after)
    return None if total_s is None or not n else total_s / n * 1000


@dataclass(slots=True)
class EngineWatch:
    """The last look at every engine by name."""

    supervisors: Mapping[str, Supervisor]
    kinds: Mapping[str, EngineKind]
    clock: Clock
    _looks: dict[str, Look] = field(default_factory=dict)

    def last(self, name: str) -> Look | None:
        """Return the last look at the process that serves now, None when there is none yet."""
        look = self._looks.get(name)
        supervisor = self.supervisors[name]
        return look if look is not None and look.generation == supervisor.generation and supervisor.base_url else None

    async def run(self, told: Told = tell_nobody) -> None:
        """Look for ever, and pass on what is told of the load."""
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
            while self.supervisors:
                await asyncio.gather(*(self.look(client, name, told) for name in self.supervisors))
                await asyncio.sleep(LOOK_EVERY_S)

    async def look(self, client: httpx.AsyncClient, name: str, told: Told = tell_nobody) -> None:
        """Look at one engine; forget the last look when it does not answer as it should."""
        supervisor = self.supervisors[name]
        url, generation, before = supervisor.metrics_url, supervisor.generation, self.last(name)
        text = None if url is None else await fetched(client, url)
        if text is None:
            self._looks.pop(name, None)
            return
        now_s, figures = self.clock.monotonic_s(), read_figures(self.kinds[name], text)
        rates = Rates() if before is None else rates_between(before, now_s, figures)
        self._looks[name] = Look(now_s, generation, figures, rates)
        tell(name, figures, told)


def tell(name: str, figures: Figures, told: Told) -> None:
    """Pass on an engine's load where it tells one that can be: a count that is no number is none."""
    running, queued = figures.running, figures.queued or 0.0
    if running is not None and 0 <= running < MOST_REQUESTS and 0 <= queued < MOST_REQUESTS:
        told(name, running, queued)


async def fetched(client: httpx.AsyncClient, url: str) -> str | None:
    """Return what an engine shows of its metrics, None when it does not answer in time or says too much."""
    body = bytearray()
    try:
        async with asyncio.timeout(TIMEOUT_S), client.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                return None
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_BYTES:
                    return None
    except (httpx.HTTPError, TimeoutError):
        return None
    return body.decode("utf-8", "replace")
