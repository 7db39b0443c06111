"""API keys: what a store keeps, who gets in, and how fast a revocation bites."""

import os
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import ConfigurationError, InvalidApiKey
from core.identity import Caller
from policies.keys import CACHED_RECORDS, Authenticator, KeyRecord, KeyStore, MemoryKeyStore, create_key, load_pepper
from policies.keys_sqlite import SqliteKeyStore

PEPPER = bytes(range(32))


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[KeyStore]:
    if request.param == "memory":
        yield MemoryKeyStore()
        return
    with closing(SqliteKeyStore(tmp_path / "keys.db")) as sqlite:
        yield sqlite


class CountingStore(MemoryKeyStore):
    """Counts the look-ups."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up: list[str] = []

    def get(self, key_id: str) -> KeyRecord | None:
        self.looked_up.append(key_id)
        return super().get(key_id)


def refused(authenticator: Authenticator, header: str | None) -> str:
    with pytest.raises(InvalidApiKey) as refusal:
        authenticator.authenticate(header)
    return refusal.value.message


def test_a_stored_key_lets_its_tenant_in_with_its_scope(store: KeyStore) -> None:
    clock = ManualClock()
    plain, record = create_key("acme", PEPPER, clock, allowed_models=["auto", "small"])
    store.put(record)
    authenticator = Authenticator(store, PEPPER, clock)
    expected = Caller("acme", record.key_id, frozenset({"auto", "small"}))
    assert authenticator.authenticate(f"Bearer {plain}") == expected
    assert authenticator.authenticate(f"bearer  {plain} ") == expected
    assert authenticator.authenticate(plain) == expected


def test_the_store_returns_records_as_they_were_put(store: KeyStore) -> None:
    clock = ManualClock()
    _, first = create_key("acme", PEPPER, clock, allowed_models=["auto"], expires_at=clock.now() + timedelta(days=1))
    clock.advance(1)
    _, second = create_key("globex", PEPPER, clock)
    store.put(second)
    store.put(first)
    assert store.records() == (first, second)
    assert store.records("globex") == (second,)
    assert store.get(first.key_id) == first
    assert store.get("0" * 16) is None


def test_neither_the_record_nor_its_text_holds_the_secret() -> None:
    plain, record = create_key("acme", PEPPER, ManualClock())
    secret = plain.rpartition("_")[2]
    assert plain == f"hg_{record.key_id}_{secret}"
    assert len(secret) == 64
    assert bytes.fromhex(secret) not in record.digest
    assert secret not in repr(record)
    assert record.digest.hex() not in repr(record)


def test_all_wrong_keys_look_the_same(store: KeyStore) -> None:
    clock = ManualClock()
    plain, record = create_key("acme", PEPPER, clock)
    store.put(record)
    authenticator = Authenticator(store, PEPPER, clock)
    other, _ = create_key("acme", PEPPER, clock)
    wrong_secret = plain[:-1] + ("0" if plain[-1] != "0" else "1")
    for header in (None, "", "Bearer", "Bearer ", "Bearer sk-1", f"Basic {plain}", other, wrong_secret, plain + "0",
                   f"{plain} {plain}", "hg_" + "é" * 40, "x" * 100_000):  # fmt: skip
        assert refused(authenticator, header) == "Invalid API key."
    assert authenticator.authenticate(plain).tenant == "acme"


def test_another_pepper_makes_every_key_wrong() -> None:
    clock = ManualClock()
    store = MemoryKeyStore()
    plain, record = create_key("acme", PEPPER, clock)
    store.put(record)
    refused(Authenticator(store, bytes(32), clock), plain)


def test_a_key_ends_at_the_moment_it_expires(store: KeyStore) -> None:
    clock = ManualClock()
    plain, record = create_key("acme", PEPPER, clock, expires_at=clock.now() + timedelta(seconds=10))
    store.put(record)
    authenticator = Authenticator(store, PEPPER, clock)
    clock.advance(9.9)
    assert authenticator.authenticate(plain).key_id == record.key_id
    clock.advance(0.1)
    refused(authenticator, plain)


def test_a_revocation_bites_within_a_second(store: KeyStore) -> None:
    clock = ManualClock()
    plain, record = create_key("acme", PEPPER, clock)
    store.put(record)
    authenticator = Authenticator(store, PEPPER, clock)
    authenticator.authenticate(plain)
    assert store.revoke(record.key_id, clock.now())
    clock.advance(0.99)
    refused(authenticator, plain)
    assert not store.revoke(record.key_id, clock.now())
    assert not store.revoke("0" * 16, clock.now())


def test_a_revocation_by_another_process_bites_and_a_new_key_works_within_a_second(tmp_path: Path) -> None:
    clock = ManualClock()
    path = tmp_path / "keys.db"
    with closing(SqliteKeyStore(path)) as gateway, closing(SqliteKeyStore(path)) as command:
        authenticator = Authenticator(gateway, PEPPER, clock)
        plain, record = create_key("acme", PEPPER, clock)
        refused(authenticator, plain)
        command.put(record)
        clock.advance(0.99)
        assert authenticator.authenticate(plain).tenant == "acme"
        command.revoke(record.key_id, clock.now())
        clock.advance(0.99)
        refused(authenticator, plain)


def test_the_store_is_asked_once_for_a_key_whether_it_exists_or_not() -> None:
    clock = ManualClock()
    store = CountingStore()
    plain, record = create_key("acme", PEPPER, clock)
    unknown, other = create_key("acme", PEPPER, clock)
    store.put(record)
    authenticator = Authenticator(store, PEPPER, clock)
    for _ in range(5):
        authenticator.authenticate(plain)
        refused(authenticator, unknown)
        clock.advance(1)
    assert store.looked_up == [record.key_id, other.key_id]


def test_guessed_ids_do_not_grow_memory_without_bound() -> None:
    store = CountingStore()
    authenticator = Authenticator(store, PEPPER, ManualClock())
    for number in range(CACHED_RECORDS + 5):
        refused(authenticator, f"hg_{number:016x}_{'0' * 64}")
    refused(authenticator, f"hg_{0:016x}_{'0' * 64}")
    refused(authenticator, f"hg_{CACHED_RECORDS + 4:016x}_{'0' * 64}")
    assert len(store.looked_up) == CACHED_RECORDS + 6


def test_the_pepper_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "var" / "pepper"
    first = load_pepper(path)
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_pepper(path) == first
    assert os.listdir(path.parent) == ["pepper"]


def test_a_pepper_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    load_pepper(path)
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="readable by others; run `chmod 600"):
        load_pepper(path)
    path.chmod(0o600)
    path.write_text("not hex")
    with pytest.raises(ConfigurationError, match="cannot be read as a pepper"):
        load_pepper(path)
    path.write_text("00")
    with pytest.raises(ConfigurationError, match="holds 1 bytes, not 32"):
        load_pepper(path)
