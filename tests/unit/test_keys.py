"""API keys: what is made, what is kept, who gets in, and how fast a revocation bites."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import ConfigurationError, InvalidApiKey, InvalidRequest, RateLimited, Unavailable
from core.identity import Caller
from policies.access import CACHED_MISSES, AdminAuthenticator, Administrator, Authenticator
from policies.failures import FailureLimiter
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
from policies.keys_sqlite import MIGRATIONS, SqliteKeyStore
from policies.pepper import PEPPER_VARIABLE, load_pepper
from policies.sqlite_schema import open_database

PEPPER = bytes(range(32))
OWNER = "hga_" + "a" * 64


class CountingStore(MemoryKeyStore):
    """Counts the look-ups, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up: list[str] = []
        self.is_away = False

    def get(self, key_id: str) -> KeyRecord | None:
        self.looked_up.append(key_id)
        return super().get(key_id)

    def revision(self) -> int:
        if self.is_away:
            raise Unavailable("away", 1.0)
        return super().revision()


def refused(authenticator: Authenticator, header: str | None, address: str = "") -> str:
    with pytest.raises(InvalidApiKey) as refusal:
        authenticator.authenticate(header, address)
    return refusal.value.message


def made(store: KeyStore, clock: ManualClock, tenant: str = "acme") -> tuple[str, KeyRecord]:
    text, record = create_key(tenant, PEPPER, clock)
    store.put(record)
    return text, record


def guess(number: int) -> str:
    return f"hg_{number:016x}_{'0' * 64}"


def test_neither_the_record_nor_its_text_holds_the_secret() -> None:
    plain, record = create_key("acme", PEPPER, ManualClock())
    secret = plain.rpartition("_")[2]
    assert plain == f"hg_{record.key_id}_{secret}"
    assert len(secret) == 64
    assert bytes.fromhex(secret) not in record.digest
    assert secret not in repr(record)
    assert record.digest.hex() not in repr(record)


def test_another_pepper_makes_every_key_wrong() -> None:
    clock, store = ManualClock(), MemoryKeyStore()
    plain, _ = made(store, clock)
    refused(Authenticator(store, bytes(32), clock), plain)


def test_the_store_is_asked_once_for_a_key_whether_it_exists_or_not() -> None:
    clock, store = ManualClock(), CountingStore()
    plain, record = made(store, clock)
    unknown, other = create_key("acme", PEPPER, clock)
    authenticator = Authenticator(store, PEPPER, clock)
    for _ in range(5):
        authenticator.authenticate(plain)
        refused(authenticator, unknown)
        clock.advance(1)
    assert store.looked_up == [record.key_id, other.key_id]


def test_a_key_that_is_narrowed_is_held_to_it_by_its_next_request() -> None:
    store, clock = MemoryKeyStore(), ManualClock()
    authenticator = Authenticator(store, PEPPER, clock)
    text, record = made(store, clock)
    assert authenticator.authenticate(text).allowed_models == frozenset()
    store.put(replace(record, allowed_models=frozenset({"mini"})))
    clock.advance(0.5)
    assert authenticator.authenticate(f"Bearer {text}").allowed_models == {"mini"}


def test_a_key_opens_until_it_expires_however_often_it_was_used() -> None:
    store, clock = MemoryKeyStore(), ManualClock()
    authenticator = Authenticator(store, PEPPER, clock)
    text, record = create_key("acme", PEPPER, clock, expires_at=clock.now() + timedelta(seconds=10))
    store.put(record)
    for _ in range(2):
        assert authenticator.authenticate(text) == Caller("acme", record.key_id)
    clock.advance(10)
    assert refused(authenticator, text)


def test_guessed_ids_neither_grow_memory_without_bound_nor_push_out_keys_that_exist() -> None:
    clock, store = ManualClock(), CountingStore()
    plain, record = made(store, clock)
    authenticator = Authenticator(store, PEPPER, clock, FailureLimiter(clock, per_minute=10**9))
    authenticator.authenticate(plain)
    for number in range(CACHED_MISSES + 5):
        refused(authenticator, guess(number))
    authenticator.authenticate(plain)
    refused(authenticator, guess(CACHED_MISSES + 4))
    assert len(store.looked_up) == CACHED_MISSES + 6
    assert store.looked_up.count(record.key_id) == 1
    refused(authenticator, guess(0))
    assert len(store.looked_up) == CACHED_MISSES + 7


def test_an_address_that_fails_too_often_waits_and_its_guesses_are_not_looked_up() -> None:
    clock, store = ManualClock(), CountingStore()
    known, _ = made(store, clock)
    authenticator = Authenticator(store, PEPPER, clock, FailureLimiter(clock, per_minute=10))
    authenticator.authenticate(known, "192.0.2.1")
    for number in range(10):
        refused(authenticator, guess(number), "192.0.2.1")
    looked_up = len(store.looked_up)
    with pytest.raises(RateLimited) as limited:
        authenticator.authenticate(guess(99), "192.0.2.1")
    assert limited.value.headers()["retry-after"] == "6"
    assert len(store.looked_up) == looked_up
    assert authenticator.authenticate(known, "192.0.2.1").tenant == "acme"
    refused(authenticator, guess(98), "192.0.2.2")
    clock.advance(6)
    refused(authenticator, guess(97), "192.0.2.1")


def test_a_wrong_secret_of_a_known_key_is_limited_like_any_other_guess() -> None:
    clock, store = ManualClock(), MemoryKeyStore()
    known, record = made(store, clock)
    authenticator = Authenticator(store, PEPPER, clock, FailureLimiter(clock, per_minute=1))
    authenticator.authenticate(known, "192.0.2.1")
    refused(authenticator, guess(1), "192.0.2.1")
    for wrong in (guess(2), f"hg_{record.key_id}_{'0' * 64}", "sk-nothing", None):
        with pytest.raises(RateLimited):
            authenticator.authenticate(wrong, "192.0.2.1")


def test_failures_of_many_addresses_stay_in_bounded_memory() -> None:
    limiter = FailureLimiter(ManualClock(), remembered=100)
    for number in range(1000):
        limiter.note(f"192.0.{number // 250}.{number % 250}")
    assert len(limiter) == 100


def test_an_ipv6_network_fails_as_one_and_an_ipv4_neighbour_does_not() -> None:
    limiter = FailureLimiter(ManualClock(), per_minute=1)
    limiter.note("2001:db8:0:1::1")
    limiter.note("192.0.2.1")
    assert limiter.wait_s("2001:db8:0:1:ffff::2") > 0
    assert limiter.wait_s("2001:db8:0:2::1") == 0
    assert limiter.wait_s("192.0.2.1") > 0
    assert limiter.wait_s("192.0.2.2") == 0


def test_what_the_store_cannot_confirm_is_not_trusted() -> None:
    clock, store = ManualClock(), CountingStore()
    plain, _ = made(store, clock)
    authenticator = Authenticator(store, PEPPER, clock)
    authenticator.authenticate(plain)
    store.is_away = True
    clock.advance(1)
    for _ in range(2):
        with pytest.raises(Unavailable):
            authenticator.authenticate(plain)


def test_an_administrators_key_opens_the_admin_door_alone() -> None:
    clock, store = ManualClock(), MemoryKeyStore()
    plain, record = create_admin_key(Role.OPERATOR, PEPPER, clock)
    store.put(record)
    tenants, admins = Authenticator(store, PEPPER, clock), AdminAuthenticator(OWNER, store, PEPPER, clock)
    assert admins.authenticate(f"Bearer {plain}") == Administrator(record.key_id, Role.OPERATOR)
    refused(tenants, plain)
    refused(tenants, plain.replace("hga_", "hg_"))
    for header in (plain, f"Basic {plain}", f"Bearer {plain.replace('hga_', 'hg_')}", None, ""):
        with pytest.raises(InvalidApiKey):
            admins.authenticate(header)


def test_a_tenants_key_does_not_open_the_admin_door() -> None:
    clock, store = ManualClock(), MemoryKeyStore()
    plain, _ = made(store, clock)
    admins = AdminAuthenticator(OWNER, store, PEPPER, clock)
    for text in (plain, plain.replace("hg_", "hga_")):
        with pytest.raises(InvalidApiKey):
            admins.authenticate(f"Bearer {text}")


def test_the_key_of_the_key_file_is_an_owners() -> None:
    clock = ManualClock()
    admins = AdminAuthenticator(OWNER, MemoryKeyStore(), PEPPER, clock)
    assert admins.authenticate(f"Bearer {OWNER}") == Administrator("key_file", Role.OWNER)
    with pytest.raises(InvalidApiKey):
        admins.authenticate(f"Bearer {OWNER[:-1]}")


def test_a_role_includes_those_below_it() -> None:
    assert [least for least in Role if Role.OPERATOR.includes(least)] == [Role.VIEWER, Role.OPERATOR]


def test_a_key_that_is_revoked_while_it_is_rotated_stays_revoked() -> None:
    clock = ManualClock()

    class Interrupted(MemoryKeyStore):
        """Someone revokes the old key when the new one has been stored."""

        def put(self, record: KeyRecord) -> None:
            super().put(record)
            if record.created_at == clock.now() and len(self.records()) == 2:
                revoke_key(self, old.key_id, clock.now())

    store = Interrupted()
    _, old = made(store, clock)
    clock.advance(1)
    with pytest.raises(InvalidRequest, match="meanwhile"):
        rotate_key(store, old.key_id, PEPPER, clock, timedelta(hours=1))
    assert all(record.revoked_at is not None for record in store.records())


def test_a_file_of_the_first_version_is_read_on(tmp_path: Path) -> None:
    clock, path = ManualClock(), tmp_path / "keys.db"
    plain, record = create_key("acme", PEPPER, clock, allowed_models=["auto"])
    connection = open_database(path, "keys", MIGRATIONS[:1])
    connection.execute(
        "INSERT INTO api_keys VALUES (?, ?, ?, ?, ?, NULL, NULL)",
        (record.key_id, "acme", record.digest, '["auto"]', record.created_at.isoformat()),
    )
    connection.close()
    store = SqliteKeyStore(path)
    try:
        expected = Caller("acme", record.key_id, frozenset({"auto"}))
        assert Authenticator(store, PEPPER, clock).authenticate(plain) == expected
    finally:
        store.close()


def test_the_pepper_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "var" / "pepper"
    first = load_pepper(path, {})
    assert len(first) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_pepper(path, {}) == first
    assert [entry.name for entry in path.parent.iterdir()] == ["pepper"]


def test_the_pepper_of_the_environment_wins_and_no_file_is_made(tmp_path: Path) -> None:
    assert load_pepper(tmp_path / "pepper", {PEPPER_VARIABLE: PEPPER.hex()}) == PEPPER
    assert list(tmp_path.iterdir()) == []
    for wrong, says in (("zz", "not hexadecimal"), ("00ff", "holds 2 bytes, not 32"), ("", "holds 0 bytes")):
        with pytest.raises(ConfigurationError, match=says):
            load_pepper(tmp_path / "pepper", {PEPPER_VARIABLE: wrong})


def test_a_pepper_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    load_pepper(path, {})
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="readable by others; run `chmod 600"):
        load_pepper(path, {})
    path.chmod(0o600)
    path.write_text("not hex")
    with pytest.raises(ConfigurationError, match="cannot be read as a pepper"):
        load_pepper(path, {})
    path.write_text("00")
    with pytest.raises(ConfigurationError, match="holds 1 bytes, not 32"):
        load_pepper(path, {})


def test_a_change_of_another_key_does_not_shut_out_known_keys_behind_a_guessing_address() -> None:
    store, clock = MemoryKeyStore(), ManualClock()
    authenticator = Authenticator(store, PEPPER, clock, FailureLimiter(clock, per_minute=1))
    text, record = create_key("acme", PEPPER, clock)
    store.put(record)
    assert authenticator.authenticate(f"Bearer {text}", "10.0.0.1").tenant == "acme"
    with pytest.raises(InvalidApiKey):
        authenticator.authenticate("Bearer wrong", "10.0.0.1")
    store.put(create_key("other", PEPPER, clock)[1])
    clock.advance(1.0)
    with pytest.raises(RateLimited):
        authenticator.authenticate("Bearer wrong", "10.0.0.1")
    assert authenticator.authenticate(f"Bearer {text}", "10.0.0.1").tenant == "acme"
