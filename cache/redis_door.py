"""The cache's scripts and its door to Redis: bounded in time, broken off early when the store is away."""

import asyncio
import logging
from collections.abc import Awaitable
from hashlib import sha1
from pathlib import Path
from typing import Any, Protocol

from redis.exceptions import NoScriptError

from core.clock import Clock

log = logging.getLogger(__name__)

TIMEOUT_S = 0.05
"""How long one call waits, connecting included; an exact look-up makes two."""
PAUSE_S = 1.0
"""How long the store is left alone after a failure; then one call tries."""
ROOT = "headgate:1:{cache}:"
Part = str | bytes | int | float

_FOLDER = Path(__file__).parent / "lua"


class Commands(Protocol):
    """A client of Redis with a bounded pool: redis-py's (plain, Sentinel, Cluster), or any other of this shape."""

    def execute_command(self, *parts: Any) -> Awaitable[Any]:
        """Send one command and return its reply; a cancelled call never leaves its reply to another."""
        ...


class StoreAway(Exception):
    """Redis did not answer in time or refused, or was left alone because it did so a moment ago."""


class Script:
    """One Lua script with what all of them share in front."""

    def __init__(self, name: str) -> None:
        self.text = "".join((_FOLDER / f"{part}.lua").read_text(encoding="utf-8") for part in ("common", name))
        self.digest = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


class Door:
    """Runs scripts and commands; says once when the store goes away and once when it is back."""

    def __init__(self, client: Commands, clock: Clock, timeout_s: float) -> None:
        self._client = client
        self._clock = clock
        self._timeout_s = timeout_s
        self._shut_until_s: float | None = None

    @property
    def is_shut(self) -> bool:
        """Tell whether the store failed and has not answered since."""
        return self._shut_until_s is not None

    async def run(self, script: Script, *arguments: Part) -> Any:
        """Run one script in one round trip; a script that Redis forgot is sent again.

        Raises:
            StoreAway: no answer in time; the script may have run nevertheless.
        """
        key = f"{ROOT}changes"
        try:
            return await self.ask("EVALSHA", script.digest, 1, key, *arguments)
        except NoScriptError:
            return await self.ask("EVAL", script.text, 1, key, *arguments)

    async def ask(self, *command: Part) -> Any:
        """Send one command under the same bounds."""
        if self._shut_until_s is not None:
            self._claim_probe(self._shut_until_s)
        try:
            async with asyncio.timeout(self._timeout_s):
                reply = await self._client.execute_command(*command)
        except NoScriptError:
            self._open()  # an answer all the same, and what follows must pass
            raise
        except Exception as problem:  # the client is the composition root's choice, and so are its errors
            self._shut(problem)
            raise StoreAway from problem
        self._open()
        return reply

    def _open(self) -> None:
        if self._shut_until_s is not None:
            self._shut_until_s = None
            log.info("the cache's store is back")

    def _shut(self, problem: Exception) -> None:
        if self._shut_until_s is None:
            reason = f"{type(problem).__name__}: {problem}"
            log.warning("the cache's store is away, requests go on without it", extra={"error": reason})
        self._shut_until_s = self._clock.monotonic_s() + PAUSE_S

    def _claim_probe(self, shut_until_s: float) -> None:
        """Let one call pass when the pause is over; those that come meanwhile are turned away at once."""
        now_s = self._clock.monotonic_s()
        if now_s < shut_until_s:
            raise StoreAway
        self._shut_until_s = now_s + self._timeout_s


def pairs_of(reply: Any) -> list[tuple[str, bytes]]:
    """Read field names and values, which clients return as a mapping or as a flat list."""
    pairs = reply.items() if isinstance(reply, dict) else zip(reply[::2], reply[1::2], strict=True)
    return [(key.decode(), value) for key, value in pairs]
