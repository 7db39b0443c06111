"""The ledger's Lua scripts and the one door to Redis: bounded in time, broken off early when the store is away."""

import asyncio
from collections.abc import Awaitable, Callable
from hashlib import sha1
from pathlib import Path
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from core.clock import Clock

TIMEOUT_S = 0.08
"""No request waits longer for the store, connecting included."""
PAUSE_S = 1.0
"""How long the store is left alone after a failure; requests meanwhile are answered at once."""
CONNECTIONS = 64

_FOLDER = Path(__file__).parent / "lua"


class StoreAway(Exception):
    """Redis did not answer in time, or was left alone because it did not a moment ago; `may_have_run` tells which."""

    def __init__(self, may_have_run: bool) -> None:
        super().__init__()
        self.may_have_run = may_have_run


class Script:
    """One Lua script with what all of them share in front."""

    def __init__(self, name: str) -> None:
        self.text = "".join((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name))
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Door:
    """Runs scripts; after a failure it stays shut for `PAUSE_S`, then one call tries again."""

    def __init__(self, client: Redis, clock: Clock, timeout_s: float) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._shut_until_s = 0.0

    @property
    def is_shut(self) -> bool:
        """Tell whether the store failed a moment ago."""
        return self._clock.monotonic_s() < self._shut_until_s

    async def run(self, script: Script, keys: tuple[str, ...], arguments: list[str]) -> Any:
        """Run one script in one round trip.

        Raises:
            StoreAway: no answer in time; the script may have run nevertheless.
        """

        async def call(client: Redis) -> Any:
            try:
                return await client.evalsha(script.digest, len(keys), *keys, *arguments)
            except NoScriptError:
                return await client.eval(script.text, len(keys), *keys, *arguments)

        return await self.ask(call)

    async def ask(self, command: Callable[[Redis], Awaitable[Any]]) -> Any:
        """Run one plain command under the same bounds."""
        if self.is_shut:
            raise StoreAway(may_have_run=False)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await command(self._client)
        except (RedisError, OSError, TimeoutError) as problem:
            self._shut_until_s = self._clock.monotonic_s() + PAUSE_S
            raise StoreAway(may_have_run=True) from problem


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Redis:
    """Return a client that waits briefly and tries twice at once; redis-py's defaults would wait for seconds."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)
