"""What the SQLite ledger adds: it survives restarts, belongs to one process, and outlasts a file that fails."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import BudgetExhausted, ConfigurationError, Unavailable
from policies.group_writer import GroupWriter
from policies.ledger import LEASE_S, Alert, Cost, Hold
from policies.ledger_sqlite import COMPONENT, MIGRATIONS, SqliteLedger
from policies.sqlite_schema import open_database
from tests.policy_samples import CALLER, budget_policy, tenant_policy

POLICY = budget_policy("0.000001")
OPEN_POLICY = tenant_policy('budgets: [{window: month, limit_usd: "0.000001"}]\non_store_outage: open')


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 20, 10, 0, tzinfo=UTC))


def held(id_: str, amount: int) -> Hold:
    return Hold(id_, CALLER, POLICY, amount)


async def sums(ledger: SqliteLedger) -> tuple[int, int, int]:
    (balance,) = await ledger.balances(POLICY)
    return balance.reserved_nano_usd, balance.spent_nano_usd, balance.unconfirmed_nano_usd


async def until(is_true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not is_true():  # noqa: ASYNC110  the writer is a thread and sets no event
            await asyncio.sleep(0.005)


async def test_a_restart_keeps_what_was_spent_and_what_is_held(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "var" / "ledger.db"
    with closing(SqliteLedger(path, clock)) as first:
        await first.reserve(held("r1", 500))
        await first.settle(held("r1", 500), Cost(123))
        await first.reserve(held("r2", 400))
    with closing(SqliteLedger(path, clock)) as second:
        assert await sums(second) == (400, 123, 0)
        with pytest.raises(BudgetExhausted):
            await second.reserve(held("r3", 478))
        clock.advance(LEASE_S)
        assert await second.reap() == 1
    with closing(SqliteLedger(path, clock)) as third:
        assert await sums(third) == (0, 523, 400)


async def test_a_hold_of_an_old_window_is_charged_there_however_late(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "ledger.db"
    with closing(SqliteLedger(path, clock)) as first:
        await first.settle(held("r1", 0), Cost(300))
        await first.reserve(held("r2", 500))
    clock.advance(60 * 86_400)
    with closing(SqliteLedger(path, clock)) as second:
        assert await second.reap() == 1
        assert await sums(second) == (0, 0, 0)
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT window_id, spent_nano_usd, unconfirmed_nano_usd FROM ledger_lines").fetchall()
    assert rows == [("2026-11", 800, 500)]


async def test_flush_waits_until_everything_is_in_the_file(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "ledger.db"
    with closing(SqliteLedger(path, clock)) as ledger:
        await ledger.reserve(held("r1", 500))
        await ledger.flush()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT amount_nano_usd FROM ledger_holds").fetchall() == [(500,)]


async def test_a_durable_hold_is_in_the_file_when_it_is_granted(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "ledger.db"
    with closing(SqliteLedger(path, clock, durable_holds=True)) as ledger:
        await ledger.reserve(held("r1", 500))
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT reservation_id FROM ledger_holds").fetchall() == [("r1",)]


async def test_a_second_process_on_the_same_file_is_refused_until_the_first_is_gone(
    tmp_path: Path, clock: ManualClock
) -> None:
    path = tmp_path / "ledger.db"
    with closing(SqliteLedger(path, clock)), pytest.raises(ConfigurationError, match="another gateway keeps its books"):
        SqliteLedger(path, clock)
    SqliteLedger(path, clock).close()


async def test_while_the_file_cannot_be_written_closed_refuses_and_open_goes_on(
    tmp_path: Path, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "ledger.db"
    with closing(SqliteLedger(path, clock, linger_s=0.0)) as ledger, closing(sqlite3.connect(path)) as saboteur:
        saboteur.execute("ALTER TABLE ledger_holds RENAME TO hidden")
        await ledger.reserve(held("r1", 100))
        await until(lambda: ledger.is_failing)
        with pytest.raises(Unavailable):
            await ledger.reserve(held("r2", 100))
        await ledger.reserve(Hold("r3", CALLER, OPEN_POLICY, 200))
        saboteur.execute("ALTER TABLE hidden RENAME TO ledger_holds")
        await ledger.flush()
        assert not ledger.is_failing
        await ledger.reserve(held("r4", 300))
    with closing(SqliteLedger(path, clock)) as again:
        assert await sums(again) == (600, 0, 0)
    assert [record.message for record in caplog.records] == ["the state file cannot be written, trying again"]


def test_a_file_of_a_newer_program_is_refused_in_one_line(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "ledger.db"
    SqliteLedger(path, clock).close()
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("UPDATE schema_versions SET version = 99")
    with pytest.raises(ConfigurationError, match=r"written by a newer program \(schema 99, this one knows 2\)"):
        SqliteLedger(path, clock)


async def test_a_file_of_schema_1_keeps_its_money_and_its_holds(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "ledger.db"
    with closing(open_database(path, COMPONENT, MIGRATIONS[:1])) as connection:
        connection.execute(
            "INSERT INTO ledger_lines VALUES ('acme', '', '', 'month', 'UTC', '2026-11', ?, 300, 0)",
            (datetime(2026, 12, 1, tzinfo=UTC).timestamp(),),
        )
        lines = '[[[["acme","","","month","UTC"],"2026-11"],1796083200.0]]'
        connection.execute(
            "INSERT INTO ledger_holds VALUES ('r1', 200, ?, ?)", (clock.now().timestamp() + LEASE_S, lines)
        )
    with closing(SqliteLedger(path, clock)) as ledger:
        assert await sums(ledger) == (200, 300, 0)
        await ledger.settle(held("r1", 200), Cost(50))
        assert await sums(ledger) == (0, 350, 0)


async def test_a_grant_survives_a_restart_and_an_alert_is_not_repeated_after_it(
    tmp_path: Path, clock: ManualClock
) -> None:
    policy = budget_policy("0.000001", more=", alerts: ['0.5', '0.9']")
    raised: list[Alert] = []
    path = tmp_path / "ledger.db"
    with closing(SqliteLedger(path, clock, on_alert=raised.append)) as first:
        await first.settle(Hold("r1", CALLER, policy, 0), Cost(600))
        (balance,) = await first.balances(policy)
        await first.grant(policy, balance.account, 100, "grant 1")
    with closing(SqliteLedger(path, clock, on_alert=raised.append)) as second:
        assert (await second.balances(policy))[0].limit_nano_usd == 1100
        await second.settle(Hold("r2", CALLER, policy, 0), Cost(1))
        await second.settle(Hold("r3", CALLER, policy, 0), Cost(399))
    assert [alert.percent for alert in raised] == [50, 90]


def test_a_file_that_is_no_database_is_refused_in_one_line(tmp_path: Path, clock: ManualClock) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(b"x" * 5000)
    with pytest.raises(ConfigurationError, match="cannot be used as a database"):
        SqliteLedger(path, clock)


def test_older_schemas_are_migrated_step_by_step_and_components_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    steps = ("CREATE TABLE a (x INTEGER)", "ALTER TABLE a ADD COLUMN y INTEGER DEFAULT 7")
    with closing(open_database(path, "one", steps[:1])) as connection:
        connection.execute("INSERT INTO a VALUES (1)")
    with closing(open_database(path, "two", ("CREATE TABLE b (z INTEGER)",))):
        pass
    with closing(open_database(path, "one", steps)) as connection:
        assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, 7)]
        assert dict(connection.execute("SELECT component, version FROM schema_versions")) == {"one": 2, "two": 1}


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    with pytest.raises(ConfigurationError):
        open_database(path, "one", ("CREATE TABLE a (x INTEGER); CREATE TABLE a (x INTEGER)",))
    with closing(open_database(path, "one", ("CREATE TABLE a (x INTEGER)",))) as connection:
        assert connection.execute("SELECT count(*) FROM a").fetchone() == (0,)


class Sum:
    """A group that adds numbers up."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, change: int) -> None:
        self.total += change

    def write(self, connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO sums VALUES (?)", (self.total,))


def test_closing_the_writer_commits_what_was_put(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    writer: GroupWriter[int] = GroupWriter(
        open_database(path, "sums", ("CREATE TABLE sums (total INTEGER)",)), Sum, linger_s=30.0
    )
    for number in range(1, 101):
        writer.put(number)
    writer.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT sum(total) FROM sums").fetchone() == (5050,)


def test_a_number_that_sqlite_cannot_hold_does_not_end_the_writer(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = open_database(path, "sums", ("CREATE TABLE sums (total INTEGER)",))
    writer: GroupWriter[int] = GroupWriter(connection, Sum, linger_s=0.0)
    writer.put(2**64)
    writer.put(-(2**64) + 5)
    writer.flushed().result(10)
    writer.close()
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT sum(total) FROM sums").fetchone() == (5,)
