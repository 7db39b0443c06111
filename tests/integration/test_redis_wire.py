"""One shared connection to Redis: answers reach who asked, nobody waits for long, and it mends itself."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import uvloop
from redis.exceptions import ResponseError

from policies.redis_wire import Address, StoreAway, Wire
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
async def wire(server: RedisServer) -> AsyncIterator[Wire]:
    async with Wire(server.url, timeout_s=0.3) as wire:
        yield wire


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_true():  # noqa: ASYNC110  the connection mends itself without telling
            await asyncio.sleep(0.01)


async def test_many_callers_share_it_and_each_gets_its_own_answer(wire: Wire) -> None:
    texts = [f"text {number}" for number in range(500)]
    replies = await asyncio.gather(*(wire.execute_command("ECHO", text) for text in texts))
    assert replies == [text.encode() for text in texts]


async def test_a_cancelled_callers_answer_reaches_nobody_else(wire: Wire) -> None:
    chance = random.Random(3)

    async def ask(number: int) -> None:
        assert await wire.execute_command("ECHO", str(number)) == str(number).encode()

    for round_ in range(100):
        tasks = [asyncio.create_task(ask(round_ * 20 + number)) for number in range(20)]
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        for task in chance.sample(tasks, 10):
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            assert outcome is None or isinstance(outcome, asyncio.CancelledError)


def test_it_serves_on_uvloop_as_well(server: RedisServer) -> None:
    async def ask() -> list[bytes]:
        async with Wire(server.url, timeout_s=5.0) as wire:
            return list(await asyncio.gather(*(wire.execute_command("ECHO", number) for number in range(50))))

    assert uvloop.run(ask()) == [str(number).encode() for number in range(50)]


async def test_a_refused_command_fails_alone(wire: Wire) -> None:
    commands = (("ECHO", "x"), ("NO SUCH",))
    replies = await asyncio.gather(*(wire.execute_command(*command) for command in commands), return_exceptions=True)
    assert replies[0] == b"x"
    assert isinstance(replies[1], ResponseError)


async def test_a_server_that_hangs_is_given_up_and_found_again(server: RedisServer, wire: Wire) -> None:
    await wire.execute_command("PING")
    server.pause()
    with pytest.raises(StoreAway) as first:
        await wire.execute_command("ECHO", "lost")
    assert first.value.may_have_run
    with pytest.raises(StoreAway) as second:
        await wire.execute_command("ECHO", "not sent")
    assert not second.value.may_have_run
    server.resume()
    await until(lambda: not wire.is_shut)
    assert await wire.execute_command("ECHO", "back") == b"back"


async def test_a_killed_server_is_noticed_at_once_and_found_again(server: RedisServer, wire: Wire) -> None:
    await wire.execute_command("PING")
    server.kill()
    with pytest.raises(StoreAway):
        await wire.execute_command("PING")
    with pytest.raises(StoreAway):
        await wire.execute_command("PING")
    server.start()
    await until(lambda: wire.is_connected)
    assert await wire.execute_command("PING") == b"PONG"


async def test_messages_of_a_channel_arrive_also_after_the_server_came_back(server: RedisServer, wire: Wire) -> None:
    heard: list[bytes] = []
    changes: list[bool] = []
    listener = Wire(server.url, 0.3, channel="news", on_message=heard.append, on_change=changes.append)
    async with listener:
        listener.start()
        await until(lambda: listener.is_connected)
        await wire.execute_command("PUBLISH", "news", "one")
        await until(lambda: bool(heard))
        server.kill()
        server.start()
        await until(lambda: len(changes) == 3 and listener.is_connected and wire.is_connected)
        await wire.execute_command("PUBLISH", "news", "two")
        await until(lambda: len(heard) == 2)
    assert heard == [b"one", b"two"]
    assert changes == [True, False, True, False]


async def test_a_password_and_a_database_are_used(server: RedisServer, wire: Wire) -> None:
    await wire.execute_command("CONFIG", "SET", "requirepass", "s3 cret")
    async with Wire(server.url, timeout_s=0.3) as stranger:
        with pytest.raises(StoreAway):
            await stranger.execute_command("PING")
    async with Wire(server.url.replace("unix://", "unix://:s3%20cret@"), timeout_s=0.3) as known:
        assert await known.execute_command("PING") == b"PONG"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://h:7/3", Address("h", 7, None, False, None, None, 3)),
        ("rediss://u:p%40@h", Address("h", 6379, None, True, "u", "p@", 0)),
        ("unix:///run/redis.sock", Address(None, 0, "/run/redis.sock", False, None, None, 0)),
    ],
)
def test_addresses_are_read_from_urls(url: str, address: Address) -> None:
    assert Address.parse(url) == address


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ValueError, match="not a scheme of Redis"):
        Address.parse("http://h")
