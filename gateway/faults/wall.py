"""Sends one request per case through a gateway to the scripted upstream, and judges what all sides saw.

The upstream runs in this process and obeys one script at a time, so any gateway can be tested as it is. Between two
cases a healthy request must pass, which resets breakers and waits for cool-downs.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx

from core.errors import HeadgateError
from gateway.faults.cases import Case, Target
from gateway.faults.client import Client
from gateway.faults.own_gateway import Lane, own_gateway
from gateway.faults.upstream.app import Upstream, serve
from gateway.faults.upstream.reply import make_reply
from gateway.faults.upstream.script import parse_script
from gateway.faults.verdicts import Released, Verdict, judge

RECOVERY_S = 40.0
RELEASE_S = 3.0
HEALTHY = "keepalive=0"
WORDS = "fault wall case"
LANES = 4
Models = Mapping[Target, str]
WhenDone = Callable[[Verdict], None]


class NotReached(HeadgateError):
    """Requests to the gateway do not arrive at the scripted upstream, or do not come back healthy."""

    code = "upstream_not_reached"


@dataclass(frozen=True, slots=True)
class Wall:
    """One upstream, one gateway, and the names under which its deployments are asked."""

    upstream: Upstream
    client: Client
    models: Models
    lane: Lane | None = None

    async def verdict(self, case: Case, number: int) -> Verdict:
        """Run one case; `number` makes its words unlike those of all others.

        Raises:
            NotReached: a healthy request does not pass within 40 s.
        """
        request_id = await self._recover(case, number)
        self.upstream.record.clear()
        if self.lane is not None:
            await self.lane.mark(request_id, case.target)
        self.upstream.obey(case.script)
        words = f"{WORDS} {number}"
        model = self.models[case.target]
        seen = await self.client.ask(model, words, stream=case.stream, leaves_after=case.leaves_after)
        await self.upstream.record.settled(RELEASE_S)
        released = self._released()
        self.upstream.abort()
        books = None if self.lane is None else await self.lane.books(case.target)
        return judge(case, _answer(case.script, words), seen, released, books)

    def _released(self) -> Released:
        sightings = self.upstream.record.describe()
        return Released(
            tuple(one["state"] for one in sightings), max((one["chunks_sent"] for one in sightings), default=0)
        )

    async def _recover(self, case: Case, number: int) -> str:
        """Wait until healthy requests pass, leave the connection as the case wants it, and return the last's id."""
        self.upstream.obey(HEALTHY if case.before is None else case.before)
        for attempt in range(int(RECOVERY_S / 0.25)):
            self.upstream.record.clear()
            seen = await self.client.ask(self.models["scripted"], f"{WORDS} {number} before {attempt}", stream=False)
            if seen.kind == "whole" and self.upstream.record.describe():
                return seen.request_id
            await asyncio.sleep(0.25)
        said = seen.error or seen.problem or f"status {seen.status}"
        raise NotReached(f"a healthy request does not pass through the gateway to the scripted upstream: {said}")


@asynccontextmanager
async def running_upstream(host: str, port: int) -> AsyncIterator[tuple[Upstream, str]]:
    """Serve a scripted upstream in this process and yield it with its URL."""
    upstream = Upstream()
    server = await serve(upstream, host, port)
    try:
        bound = server.sockets[0].getsockname()
        yield upstream, f"http://{bound[0]}:{bound[1]}"
    finally:
        upstream.abort()
        server.close()
        await server.wait_closed()


async def run_own(cases: Sequence[Case], when_done: WhenDone = lambda _: None, lanes: int = LANES) -> list[Verdict]:
    """Run the cases against a gateway of our own, several at a time, and return the verdicts in the cases' order."""
    async with AsyncExitStack() as stack:
        upstreams = [await stack.enter_async_context(running_upstream("127.0.0.1", 0)) for _ in range(lanes)]
        opened = await stack.enter_async_context(own_gateway([url for _, url in upstreams]))
        http = await stack.enter_async_context(_http_client())
        walls = [
            Wall(upstream, Client(http, lane.url, lane.key), lane.models, lane)
            for (upstream, _), lane in zip(upstreams, opened, strict=True)
        ]
        waiting, verdicts = deque(enumerate(cases)), dict[int, Verdict]()

        async def work(wall: Wall) -> None:
            while waiting:
                number, case = waiting.popleft()
                verdicts[number] = await wall.verdict(case, number)
                when_done(verdicts[number])

        async with asyncio.TaskGroup() as tasks:
            for wall in walls:
                tasks.create_task(work(wall))
        return [verdicts[number] for number in range(len(cases))]


async def run_other(
    cases: Sequence[Case], upstream: Upstream, url: str, key: str, models: Models, when_done: WhenDone = lambda _: None
) -> list[Verdict]:
    """Run the cases whose deployment is named against any gateway, one after another."""
    verdicts = []
    async with _http_client() as http:
        wall = Wall(upstream, Client(http, url, key), models)
        for number, case in enumerate(cases):
            if case.target in models:
                verdicts.append(await wall.verdict(case, number))
                when_done(verdicts[-1])
    return verdicts


@asynccontextmanager
async def _http_client() -> AsyncIterator[httpx.AsyncClient]:
    """Open a client that keeps no connection, so that every case begins alike."""
    limits = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(timeout=None, limits=limits, trust_env=False) as http:  # noqa: S113 - cases end by asyncio.timeout
        yield http


def _answer(script: str, words: str) -> str:
    """Return what the upstream says when nothing goes wrong."""
    body = {"messages": [{"role": "user", "content": words}]}
    return make_reply(parse_script(script), body, 0).text or ""
