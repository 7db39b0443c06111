"""The door to Redis when a restarted server has forgotten its scripts."""

from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError

from core.clock import ManualClock
from policies.redis_scripts import PAUSE_S, Door, Script
from policies.redis_wire import StoreAway


class Restarted:
    """A client whose server goes away once and comes back without scripts."""

    def __init__(self) -> None:
        self.is_up = True
        self.asked: list[Any] = []

    async def execute_command(self, *parts: Any) -> Any:
        self.asked.append(parts[0])
        if not self.is_up:
            raise RedisConnectionError("gone")
        if parts[0] == "EVALSHA":
            raise NoScriptError("NOSCRIPT")
        return b"ok"


async def test_the_first_call_after_a_restart_brings_its_script_along() -> None:
    client, clock = Restarted(), ManualClock()
    door = Door(client, clock, timeout_s=1.0)
    client.is_up = False
    with pytest.raises(StoreAway):
        await door.run(Script("reserve"), ())
    client.is_up = True
    clock.advance(PAUSE_S)
    assert await door.run(Script("reserve"), ()) == b"ok"
    assert client.asked[-2:] == ["EVALSHA", "EVAL"]
    assert not door.is_shut
