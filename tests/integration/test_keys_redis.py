"""Keys on a real Redis that dies, comes back empty or older, while a replica follows."""

import threading
from collections.abc import Callable, Iterator

import pytest

from core.clock import ManualClock, SystemClock
from core.errors import ConfigurationError, InvalidApiKey, Unavailable
from policies.access import Authenticator
from policies.keys import KeyRecord, create_key, revoke_key
from policies.keys_redis import RECORDS, RedisKeyStore, connect
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

pytestmark = [pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]
PEPPER = bytes(range(32))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture
def open_store(server: RedisServer) -> Iterator[Callable[[], RedisKeyStore]]:
    opened: list[RedisKeyStore] = []

    def open_() -> RedisKeyStore:
        opened.append(RedisKeyStore(connect(server.url, timeout_s=0.5), SystemClock()))
        return opened[-1]

    yield open_
    for store in opened:
        store.close()


def made(store: RedisKeyStore) -> tuple[str, KeyRecord]:
    text, record = create_key("acme", PEPPER, ManualClock())
    store.put(record)
    return text, record


def wait_until(fact: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if fact():
            return
        pause.wait(0.01)
    raise AssertionError("it did not come about")


def test_a_replica_that_follows_sees_changes_by_itself(open_store: Callable[[], RedisKeyStore]) -> None:
    replica, command = open_store(), open_store()
    replica.follow(poll_s=0.01)
    _, record = made(command)
    wait_until(lambda: replica.get(record.key_id) == record)
    revoke_key(command, record.key_id, ManualClock().now())
    wait_until(lambda: (seen := replica.get(record.key_id)) is not None and seen.revoked_at is not None)
    assert replica.age_s() < 5


def test_known_keys_work_on_while_redis_is_away_and_the_age_tells(
    server: RedisServer, open_store: Callable[[], RedisKeyStore]
) -> None:
    store = open_store()
    text, record = made(store)
    store.follow(poll_s=0.01)
    authenticator = Authenticator(store, PEPPER, ManualClock())
    server.kill()
    wait_until(lambda: store.age_s() > 0.2)
    assert authenticator.authenticate(text).key_id == record.key_id
    with pytest.raises(Unavailable):
        revoke_key(store, record.key_id, ManualClock().now())
    server.start()
    wait_until(lambda: store.age_s() < 0.2)
    assert revoke_key(store, record.key_id, ManualClock().now())


def test_a_store_that_comes_back_without_a_key_takes_it_away(
    open_store: Callable[[], RedisKeyStore], server: RedisServer
) -> None:
    replica, command = open_store(), open_store()
    text, _ = made(command)
    replica.sync()
    with connect(server.url) as client:
        client.flushall()
    _, other = made(command)
    replica.sync()
    assert [record.key_id for record in replica.records()] == [other.key_id]
    with pytest.raises(InvalidApiKey):
        Authenticator(replica, PEPPER, ManualClock()).authenticate(text)


def test_a_record_that_cannot_be_read_is_no_key_and_harms_no_other(
    open_store: Callable[[], RedisKeyStore], server: RedisServer
) -> None:
    store = open_store()
    _, record = made(store)
    with connect(server.url) as client:
        client.hset(RECORDS, "0" * 16, b"\xc1 broken")
    fresh = open_store()
    assert fresh.records() == (record,)


def test_a_server_that_does_not_answer_refuses_the_start(server: RedisServer) -> None:
    server.kill()
    with connect(server.url, timeout_s=0.2) as client, pytest.raises(ConfigurationError, match="does not answer"):
        RedisKeyStore(client, SystemClock())


def test_writers_on_several_connections_lose_no_key(open_store: Callable[[], RedisKeyStore]) -> None:
    stores = [open_store() for _ in range(4)]

    def write(store: RedisKeyStore) -> None:
        for _ in range(25):
            made(store)

    threads = [threading.Thread(target=write, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.sync()
        assert len(store.records()) == 100
