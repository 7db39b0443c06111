"""The SQLite store outlives the process, refuses newer files, and treats damage as a miss."""

import hashlib
import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cache.sealing import Sealer, TenantKeys
from cache.sqlite_rows import SELECT
from cache.sqlite_store import SCHEMA_VERSION, SqliteEntryStore
from core.clock import ManualClock
from core.errors import ConfigurationError
from tests.caching import answer, entry


def execute(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(statement)


def contents(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.glob("cache.db*"))


async def stored(path: Path, *names: str) -> None:
    store = SqliteEntryStore(path, ManualClock())
    for name in names:
        await store.put(entry(name))
    await store.close()


async def test_entries_outlive_the_process(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "cache.db"
    await stored(path, "a")
    reopened = SqliteEntryStore(path, ManualClock())
    found = await reopened.read("acme", "normalised-a")
    assert found is not None
    assert found.answer == answer()
    await reopened.close()


async def test_a_deletion_outlives_the_process(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    await stored(path, "a", "b")
    store = SqliteEntryStore(path, ManualClock())
    await store.delete("acme", ["id-a"])
    await store.close()
    reopened = SqliteEntryStore(path, ManualClock())
    assert await reopened.read("acme", "id-a") is None
    assert await reopened.read("acme", "id-b") is not None
    await reopened.close()


@pytest.mark.parametrize(
    "column",
    [
        "answer = x'00'", "answer = 'text'", "answer = 7", "tenant = 'acme', prompt = 'x'", "prompt = x'00'",
        "vector = x'00'", "scope = 's'", "tags = 'x'", "is_sealed = 'x'", "is_sealed = 1",
        "expires_at_s = expires_at_s + 1", "created_at_s = 1", "checksum = 'x'",
        "checksum = x'00000000'",
    ],
)  # fmt: skip
async def test_a_damaged_row_is_a_miss_and_a_warning(
    tmp_path: Path, column: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "cache.db"
    await stored(path, "a", "b")
    execute(path, f"UPDATE cache_entries SET {column} WHERE entry_id = 'id-a'")
    store = SqliteEntryStore(path, ManualClock())
    with caplog.at_level(logging.WARNING):
        assert await store.read("acme", "exact-a") is None
    assert "corrupt" in caplog.text
    assert {one.entry_id async for batch in store.live() for one in batch} == {"id-b"}
    await store.close()


@pytest.mark.parametrize("tags", [(), ("news",)])
async def test_a_row_with_the_checksum_of_an_older_version_is_read(tmp_path: Path, tags: tuple[str, ...]) -> None:
    path = tmp_path / "cache.db"
    store = SqliteEntryStore(path, ManualClock())
    await store.put(entry("a", tags=tags))
    await store.put(entry("b", tags=tags))
    await store.close()
    with closing(sqlite3.connect(path)) as database, database:
        for *columns, _ in database.execute(SELECT).fetchall():
            summed = tuple(columns if tags else columns[:11])
            old = hashlib.blake2b(repr(summed).encode(), digest_size=16).digest()
            database.execute("UPDATE cache_entries SET checksum = ? WHERE entry_id = ?", (old, columns[0]))
    execute(path, "UPDATE cache_entries SET prompt = 'x' WHERE entry_id = 'id-b'")
    reopened = SqliteEntryStore(path, ManualClock())
    found = await reopened.read("acme", "exact-a")
    assert found is not None
    assert (found.prompt, found.answer, found.tags) == ("prompt a", answer(), tags)
    assert await reopened.read("acme", "exact-b") is None
    await reopened.close()


async def test_a_table_that_vanished_is_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    await stored(path, "a")
    store = SqliteEntryStore(path, ManualClock())
    execute(path, "DROP TABLE cache_entries")
    assert await store.read("acme", "exact-a") is None
    await store.close()


async def test_a_newer_file_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    await stored(path)
    execute(path, f"UPDATE cache_schema SET version = {SCHEMA_VERSION + 1}")
    with pytest.raises(ConfigurationError, match=f"schema version {SCHEMA_VERSION + 1}.*upgrade") as refusal:
        SqliteEntryStore(path, ManualClock())
    assert "\n" not in refusal.value.message


async def test_an_unversioned_file_is_migrated(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    execute(path, "CREATE TABLE cache_schema (version INTEGER NOT NULL)")
    await stored(path, "a")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT version FROM cache_schema").fetchall() == [(SCHEMA_VERSION,)]


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    path.write_bytes(b"not a database, but long enough to look like one to nobody" * 20)
    with pytest.raises(ConfigurationError, match="cannot be opened"):
        SqliteEntryStore(path, ManualClock())


async def test_a_file_of_the_first_version_is_migrated_with_its_entries_and_their_cost(tmp_path: Path) -> None:
    path = tmp_path / "cache.db"
    await stored(path, "a")
    for statement in (
        "ALTER TABLE cache_entries DROP COLUMN tags",
        "ALTER TABLE cache_entries DROP COLUMN is_sealed",
        "ALTER TABLE cache_entries DROP COLUMN cost_nano_usd",
        "UPDATE cache_schema SET version = 1",
    ):
        execute(path, statement)
    reopened = SqliteEntryStore(path, ManualClock())
    found = await reopened.read("acme", "exact-a")
    assert found is not None
    assert found.answer == answer()
    await reopened.close()
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT cost_nano_usd FROM cache_entries").fetchall() == [(1_000,)]


async def test_a_tenant_that_was_forgotten_gets_no_new_key_from_what_still_waited_to_be_written(tmp_path: Path) -> None:
    keys = TenantKeys(tmp_path / "keys")
    store = SqliteEntryStore(tmp_path / "cache.db", ManualClock(), sealer=Sealer(keys))
    names = [str(number) for number in range(20)]
    for name in names:
        await store.put(entry(name))
    assert await store.delete("acme", [f"id-{name}" for name in names]) == len(names)
    keys.shred("acme")
    await store.close()
    assert list((tmp_path / "keys").iterdir()) == []


async def test_a_sealed_file_holds_no_text_and_is_shredded_with_the_key(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, sealer = tmp_path / "cache.db", Sealer(TenantKeys(tmp_path / "keys"))
    store = SqliteEntryStore(path, ManualClock(), sealer=sealer)
    await store.put(entry("a", prompt="a very private question", answer=answer("a very private answer")))
    await store.put(entry("b", tenant="other"))
    await store.close()
    assert b"very private" not in contents(tmp_path)
    sealer.shred("acme")
    reopened = SqliteEntryStore(path, ManualClock(), sealer=sealer)
    assert await reopened.read("acme", "exact-a") is None
    assert "corrupt" in caplog.text
    assert await reopened.read("other", "exact-b") is not None
    await reopened.close()
    unsealed = SqliteEntryStore(path, ManualClock())
    assert await unsealed.read("other", "exact-b") is None
    await unsealed.close()
