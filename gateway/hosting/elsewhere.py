"""The engines of a gateway as a worker sees them that does not host them; it asks the first worker for their state.

A report goes the other way: what is under way on which address, so that the first worker stops no engine that is in
use, and what requests want that sleeps. A request that meets an engine's end in the moment between two answers fails
over as any other does. Closed while the first worker is away: its engines have ended with it, and are loading again.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from backends.engines.leases import Leases
from core.clock import Clock
from core.plan import Readiness

logger = logging.getLogger("headgate.hosting")
ASK_EVERY_S = 0.2
TIMEOUT_S = 2.0
AWAY_RETRY_S = 2.0
ENGINES_URL = "http://worker/engines"


class EngineNow(msgspec.Struct, frozen=True):
    """An engine as the first worker has it."""

    readiness: Readiness
    base_url: str | None
    retry_after_s: float


class Report(msgspec.Struct, frozen=True):
    """What a worker tells the first one: by engine and address, the requests since its last report or under way."""

    worker: int
    wanted: list[str]
    under_way: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class EngineFace:
    """What a deployment needs of its engine, wherever that is hosted."""

    base_url: Callable[[], str | None]
    leases: Callable[[], Leases]
    readiness: Callable[[], Readiness]
    retry_after_s: Callable[[], float]
    wanted: Callable[[], None]


LOADING = EngineNow(Readiness.LOADING, None, AWAY_RETRY_S)
_decoder = msgspec.json.Decoder(dict[str, EngineNow])


class EnginesElsewhere:
    """What was last heard of the first worker's engines."""

    def __init__(self, socket: Path, worker: int, names: Iterable[str], clock: Clock) -> None:
        """Know nothing yet; `socket` is where the first worker answers `worker`."""
        self._socket = socket
        self._worker = worker
        self._clock = clock
        self._known = dict.fromkeys(names, LOADING)
        self._leases: dict[str, dict[str, Leases]] = {name: {} for name in self._known}
        self._used: set[tuple[str, str]] = set()
        self._wanted: set[str] = set()
        self._poke = asyncio.Event()

    def face(self, name: str) -> EngineFace:
        """Return one engine."""
        return EngineFace(
            base_url=lambda: self._known[name].base_url,
            leases=lambda: self._lease(name),
            readiness=lambda: self._known[name].readiness,
            retry_after_s=lambda: self._known[name].retry_after_s,
            wanted=lambda: self._want(name),
        )

    async def run(self) -> None:
        """Ask until cancelled."""
        if not self._known:
            return
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(self._socket))) as client:
            while True:
                await self._ask(client)
                with suppress(TimeoutError):
                    async with asyncio.timeout(ASK_EVERY_S):
                        await self._poke.wait()
                self._poke.clear()

    async def _ask(self, client: httpx.AsyncClient) -> None:
        """Report, and take what is told; while nobody answers, every engine is loading."""
        report = Report(self._worker, sorted(self._wanted), self._under_way())
        self._wanted.clear()
        self._used.clear()
        try:
            answer = await client.post(ENGINES_URL, content=msgspec.json.encode(report), timeout=TIMEOUT_S)
            self._known |= _decoder.decode(answer.raise_for_status().content)
        except (httpx.HTTPError, OSError, msgspec.DecodeError) as problem:
            if any(engine is not LOADING for engine in self._known.values()):
                logger.warning("the worker that hosts the engines does not answer", extra={"problem": str(problem)})
            self._known = dict.fromkeys(self._known, LOADING)

    def _under_way(self) -> dict[str, dict[str, int]]:
        """Return what was used since the last report, or still is, and forget addresses that are gone and idle."""
        told = {}
        for name, leases in self._leases.items():
            counts = {url: lease.count or int((name, url) in self._used) for url, lease in leases.items()}
            told[name] = {url: count for url, count in counts.items() if count}
            present = self._known[name].base_url
            self._leases[name] = {url: one for url, one in leases.items() if counts[url] or url == present}
        return told

    def _lease(self, name: str) -> Leases:
        url = self._known[name].base_url or ""
        self._used.add((name, url))
        return self._leases[name].setdefault(url, Leases(self._clock))

    def _want(self, name: str) -> None:
        if self._known[name].readiness is not Readiness.READY:
            self._wanted.add(name)
            self._poke.set()
