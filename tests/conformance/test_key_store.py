"""What every key store promises: memory, SQLite and Redis, each also as a second process would see it."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import InvalidApiKey, InvalidRequest
from core.identity import Caller
from policies.access import Authenticator
from policies.keys import (
    KeyRecord,
    KeyStore,
    MemoryKeyStore,
    Role,
    create_admin_key,
    create_key,
    revoke_key,
    rotate_key,
)
from policies.keys_redis import RedisKeyStore, connect
from policies.keys_sqlite import SqliteKeyStore
from tests.redis_server import BINARY, WHY_NOT, RedisServer, running_redis

PEPPER = bytes(range(32))
Open = Callable[[], KeyStore]


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with running_redis() as server:
        yield server


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=[pytest.mark.redis, pytest.mark.skipif(BINARY is None, reason=WHY_NOT)]),
    ]
)
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    """Return what opens the same keys again, as another process does."""
    opened: list[SqliteKeyStore | RedisKeyStore] = []
    memory = MemoryKeyStore()

    def sqlite() -> KeyStore:
        opened.append(SqliteKeyStore(tmp_path / "keys.db"))
        return opened[-1]

    def redis() -> KeyStore:
        opened.append(RedisKeyStore(connect(request.getfixturevalue("server").url), ManualClock()))
        return opened[-1]

    if request.param == "redis":
        with connect(request.getfixturevalue("server").url) as client:
            client.flushall()
    yield {"memory": lambda: memory, "sqlite": sqlite, "redis": redis}[request.param]
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Open) -> KeyStore:
    return open_store()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


def refused(authenticator: Authenticator, header: str | None) -> str:
    with pytest.raises(InvalidApiKey) as refusal:
        authenticator.authenticate(header)
    return refusal.value.message


def made(store: KeyStore, clock: ManualClock, tenant: str = "acme") -> tuple[str, KeyRecord]:
    text, record = create_key(tenant, PEPPER, clock)
    store.put(record)
    return text, record


def test_a_stored_key_lets_its_tenant_in_with_its_scopes(store: KeyStore, clock: ManualClock) -> None:
    plain, record = create_key(
        "acme", PEPPER, clock, allowed_models=["auto", "x"], allowed_tiers=["small"], allowed_users=["ada"]
    )
    store.put(record)
    authenticator = Authenticator(store, PEPPER, clock)
    expected = Caller("acme", record.key_id, frozenset({"auto", "x"}), frozenset({"small"}), frozenset({"ada"}))
    for header in (f"Bearer {plain}", f"bearer  {plain} ", plain):
        assert authenticator.authenticate(header) == expected


def test_records_come_back_as_they_were_put_oldest_first(store: KeyStore, open_store: Open, clock: ManualClock) -> None:
    _, first = create_key("acme", PEPPER, clock, allowed_users=["é", "ß"], expires_at=clock.now() + timedelta(days=1))
    clock.advance(1)
    _, second = create_admin_key(Role.VIEWER, PEPPER, clock)
    second = replace(second, revoked_at=clock.now(), replaced_by="0" * 16)
    store.put(second)
    store.put(first)
    for seen in (store, open_store()):
        assert seen.records() == (first, second)
        assert seen.records("acme") == (first,)
        assert seen.records("nobody") == ()
        assert seen.get(second.key_id) == second
        assert seen.get("0" * 16) is None


def test_all_wrong_keys_look_the_same(store: KeyStore, clock: ManualClock) -> None:
    plain, _ = made(store, clock)
    authenticator = Authenticator(store, PEPPER, clock)
    other, _ = create_key("acme", PEPPER, clock)
    wrong_secret = plain[:-1] + ("0" if plain[-1] != "0" else "1")
    for header in (None, "", "Bearer", "Bearer ", "Bearer sk-1", f"Basic {plain}", other, wrong_secret, plain + "0",
                   f"{plain} {plain}", "hg_" + "é" * 40, "x" * 100_000, plain.replace("hg_", "hga_")):  # fmt: skip
        assert refused(authenticator, header) == "Invalid API key."
    assert authenticator.authenticate(plain).tenant == "acme"


def test_a_key_ends_at_the_moment_it_expires(store: KeyStore, clock: ManualClock) -> None:
    plain, record = create_key("acme", PEPPER, clock, expires_at=clock.now() + timedelta(seconds=10))
    store.put(record)
    authenticator = Authenticator(store, PEPPER, clock)
    clock.advance(9.9)
    assert authenticator.authenticate(plain).key_id == record.key_id
    clock.advance(0.1)
    refused(authenticator, plain)


def test_a_revocation_elsewhere_bites_and_a_new_key_works_within_a_second(
    store: KeyStore, open_store: Open, clock: ManualClock
) -> None:
    command = open_store()
    authenticator = Authenticator(store, PEPPER, clock)
    plain, record = create_key("acme", PEPPER, clock)
    refused(authenticator, plain)
    command.put(record)
    clock.advance(0.99)
    assert authenticator.authenticate(plain).tenant == "acme"
    assert revoke_key(command, record.key_id, clock.now())
    clock.advance(0.99)
    refused(authenticator, plain)


def test_only_a_key_that_is_there_and_not_revoked_can_be_revoked(store: KeyStore, clock: ManualClock) -> None:
    _, record = made(store, clock)
    assert revoke_key(store, record.key_id, clock.now())
    revoked_at = clock.now()
    clock.advance(5)
    assert not revoke_key(store, record.key_id, clock.now())
    assert not revoke_key(store, "0" * 16, clock.now())
    kept = store.get(record.key_id)
    assert kept is not None
    assert kept.revoked_at == revoked_at


def test_a_rotated_key_and_its_successor_work_until_the_overlap_ends(store: KeyStore, clock: ManualClock) -> None:
    old_text, old = create_key("acme", PEPPER, clock, allowed_models=["auto"], allowed_tiers=["small"])
    store.put(old)
    clock.advance(60)
    new_text, new = rotate_key(store, old.key_id, PEPPER, clock, timedelta(hours=24))
    authenticator = Authenticator(store, PEPPER, clock)
    first, second = authenticator.authenticate(old_text), authenticator.authenticate(new_text)
    assert replace(first, key_id=second.key_id) == second
    assert first.key_id != second.key_id
    clock.advance(24 * 3600)
    refused(authenticator, old_text)
    assert authenticator.authenticate(new_text).key_id == new.key_id


def test_rotation_never_lengthens_a_life_or_widens_a_scope(store: KeyStore, clock: ManualClock) -> None:
    _, old = create_key("acme", PEPPER, clock, allowed_users=["ada"], expires_at=clock.now() + timedelta(hours=10))
    store.put(old)
    clock.advance(5 * 3600)
    _, new = rotate_key(store, old.key_id, PEPPER, clock, timedelta(hours=24))
    ending = store.get(old.key_id)
    assert ending is not None
    assert ending.expires_at == old.expires_at
    assert new.expires_at == clock.now() + timedelta(hours=10)
    assert (new.tenant, new.allowed_users, new.role) == ("acme", frozenset({"ada"}), None)


def test_a_key_is_rotated_once_and_only_while_it_is_valid(store: KeyStore, clock: ManualClock) -> None:
    _, old = made(store, clock)
    _, new = rotate_key(store, old.key_id, PEPPER, clock, timedelta(hours=1))
    with pytest.raises(InvalidRequest, match=new.key_id):
        rotate_key(store, old.key_id, PEPPER, clock, timedelta(hours=1))
    revoke_key(store, new.key_id, clock.now())
    with pytest.raises(InvalidRequest, match="not valid any more"):
        rotate_key(store, new.key_id, PEPPER, clock, timedelta(hours=1))
    with pytest.raises(InvalidRequest, match="no key"):
        rotate_key(store, "0" * 16, PEPPER, clock, timedelta(hours=1))
    assert len(store.records()) == 2


def test_the_revision_changes_with_every_change_and_only_then(store: KeyStore, clock: ManualClock) -> None:
    before = store.revision()
    _, record = made(store, clock)
    after_put = store.revision()
    assert store.update(record.key_id, lambda _: None) is None
    assert store.update("0" * 16, lambda record: record) is None
    assert store.get(record.key_id) == record
    revoke_key(store, record.key_id, clock.now())
    assert len({before, after_put, store.revision()}) == 3
    assert store.revision() == store.revision()


def test_two_that_change_one_record_both_count(store: KeyStore, open_store: Open, clock: ManualClock) -> None:
    _, record = made(store, clock)
    other = open_store()
    was_interrupted: list[bool] = []

    def widened(held: KeyRecord) -> KeyRecord:
        if not was_interrupted and isinstance(store, RedisKeyStore):
            was_interrupted.append(revoke_key(other, record.key_id, clock.now()))
        return replace(held, expires_at=clock.now() + timedelta(days=1))

    if not isinstance(store, RedisKeyStore):
        revoke_key(other, record.key_id, clock.now())
    changed = store.update(record.key_id, widened)
    assert changed is not None
    assert changed.revoked_at is not None
    assert changed.expires_at is not None
