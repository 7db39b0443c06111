"""The ledger's Lua scripts and the one door to Redis: bounded in time, broken off early when the store is away."""

import asyncio
from collections.abc import Awaitable
from hashlib import sha1
from pathlib import Path
from typing import Any, Protocol

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from core.clock import Clock
from policies.redis_wire import Part, StoreAway, Wire

TIMEOUT_S = 0.05
"""How long one call waits, connecting included; a request makes two at most, so none waits 100 ms for the store."""
PAUSE_S = 1.0
"""How long the store is left alone after a failure; requests meanwhile are answered at once, then one call tries."""
CONNECTIONS = 64

_FOLDER = Path(__file__).parent / "lua"


class Commands(Protocol):
    """A client of Redis: a `Wire`, or one of redis-py's (plain, Sentinel, Cluster)."""

    def execute_command(self, *parts: Any) -> Awaitable[Any]:
        """Send one command and return its reply."""
        ...


class Script:
    """One Lua script with what all of them share in front."""

    def __init__(self, name: str) -> None:
        self.text = "".join((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name))
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Door:
    """Runs scripts; after a failure it stays shut for `PAUSE_S`, then one call tries again."""

    def __init__(self, client: Commands, clock: Clock, timeout_s: float) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._shut_until_s: float | None = None

    @property
    def is_shut(self) -> bool:
        """Tell whether the store failed and has not answered since."""
        return self._shut_until_s is not None or (isinstance(self._client, Wire) and self._client.is_shut)

    async def run(self, script: Script, keys: tuple[Part, ...], *arguments: Part) -> Any:
        """Run one script in one round trip.

        Raises:
            StoreAway: no answer in time; the script may have run nevertheless.
        """
        try:
            return await self.ask("EVALSHA", script.digest, len(keys), *keys, *arguments)
        except NoScriptError:
            return await self.ask("EVAL", script.text, len(keys), *keys, *arguments)

    async def ask(self, *command: Part) -> Any:
        """Run one plain command under the same bounds."""
        if self._shut_until_s is not None:
            self._claim_probe(self._shut_until_s)
        try:
            if isinstance(self._client, Wire):
                reply = await self._client.execute_command(*command)
            else:
                async with asyncio.timeout(self._timeout_s):
                    reply = await self._client.execute_command(*command)
        except NoScriptError:
            self._shut_until_s = None  # it answered: the call that brings the script must pass
            raise
        except StoreAway:  # a wire knows by itself when the store is back
            raise
        except (RedisError, OSError, TimeoutError) as problem:
            self._shut_until_s = self._clock.monotonic_s() + PAUSE_S
            raise StoreAway(may_have_run=True) from problem
        self._shut_until_s = None
        return reply

    def _claim_probe(self, shut_until_s: float) -> None:
        """Let one call pass when the pause is over; those that come meanwhile are turned away at once."""
        now_s = self._clock.monotonic_s()
        if now_s < shut_until_s:
            raise StoreAway(may_have_run=False)
        self._shut_until_s = now_s + self._timeout_s


def connect(url: str, timeout_s: float = TIMEOUT_S) -> Redis:
    """Return redis-py's client, waiting briefly and trying twice at once; its defaults would wait for seconds."""
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)
