"""The ledger of one gateway process that survives restarts: books in memory, written behind in group commits.

A hold is granted and settled in memory, and the change is handed to a writer thread that commits groups every
`linger_s` (10 ms). What that costs when something dies:

- The process ends by itself: nothing, the last group is written first.
- `kill -9`: at most the last group, changes younger than about `linger_s` plus one commit. A settlement lost with it
  leaves its hold open in the file, which the reaper then charges in full: spent money is not lost. A grant lost with it
  was made in those milliseconds; its request can have cost at most its amount. With `durable_holds=True` a grant waits
  for its group, no request starts before its hold is in the file, and nothing that was spent can be lost at all.
- Power cut: what came after the last checkpoint, about one second, with the same reading.

Holds of a dead process are restored as open and reaped when their lease runs out. A file belongs to one process: a
second one is refused. While the file cannot be written, `on_store_outage: closed` refuses with 503; the other two go
on in memory, which is still exact, and everything is written once the file can be.
"""

import asyncio
import fcntl
import os
import sqlite3
from pathlib import Path

import msgspec

from core.clock import Clock
from core.errors import ConfigurationError, Unavailable
from core.identity import Caller
from core.plan import Standing
from core.rules import TenantPolicy
from policies.books import KEEP_ENDED_S, Books, Change, LineState, OpenHold
from policies.budgets import MAX_USERS, Account
from policies.group_writer import GroupWriter
from policies.ledger import Balance, Cost, Hold, OnAlert, never_waits
from policies.lines import Line, LineKey
from policies.sqlite_schema import open_database
from policies.windows import Calendar

COMPONENT = "ledger"
MIGRATIONS = (
    """
    CREATE TABLE ledger_lines (
        tenant TEXT, key_id TEXT, tier TEXT, window TEXT, zone TEXT, window_id TEXT,
        ends_at_s REAL NOT NULL, spent_nano_usd INTEGER NOT NULL, unconfirmed_nano_usd INTEGER NOT NULL,
        PRIMARY KEY (tenant, key_id, tier, window, zone, window_id)) WITHOUT ROWID;
    CREATE TABLE ledger_holds (
        reservation_id TEXT PRIMARY KEY, amount_nano_usd INTEGER NOT NULL, lease_until_s REAL NOT NULL,
        lines TEXT NOT NULL) WITHOUT ROWID
    """,
    """
    CREATE TABLE ledger_lines_2 (
        tenant TEXT, key_id TEXT, user TEXT, tier TEXT, window TEXT, zone TEXT, window_id TEXT,
        ends_at_s REAL NOT NULL, spent_nano_usd INTEGER NOT NULL, unconfirmed_nano_usd INTEGER NOT NULL,
        granted_nano_usd INTEGER NOT NULL,
        PRIMARY KEY (tenant, key_id, user, tier, window, zone, window_id)) WITHOUT ROWID;
    INSERT INTO ledger_lines_2 SELECT tenant, key_id, '', tier, window, zone, window_id,
        ends_at_s, spent_nano_usd, unconfirmed_nano_usd, 0 FROM ledger_lines;
    DROP TABLE ledger_lines;
    ALTER TABLE ledger_lines_2 RENAME TO ledger_lines
    """,
)
LINGER_S = 0.01
KEEP_HISTORY_S = 400 * 86_400.0

_lines_decoder = msgspec.json.Decoder(list[tuple[tuple[list[str], str], float]])
_ACCOUNT_BEFORE_USERS = 5
"""Holds that schema 1 wrote name accounts without an end user."""


class SqliteLedger:
    """A `BudgetLedger` and `Treasury` on one file for one process."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        *,
        durable_holds: bool = False,
        linger_s: float = LINGER_S,
        on_alert: OnAlert | None = None,
        max_users: int = MAX_USERS,
    ) -> None:
        """Open or create the file.

        Raises:
            ConfigurationError: another process has it, it is not ours, or a newer program wrote it.
        """
        self._lock = _lock(path)
        try:
            connection = open_database(path, COMPONENT, MIGRATIONS)
        except ConfigurationError:
            os.close(self._lock)
            raise
        lines, holds = _read(connection, clock.now().timestamp())
        self._durable_holds = durable_holds
        self._writer: GroupWriter[Change] = GroupWriter(connection, _Group, 0.0 if durable_holds else linger_s)
        self._books = Books(Calendar(clock), self._writer.put, on_alert, max_users)
        self._books.restore(lines, holds)

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        """Return what the caller may still spend."""
        return self._books.standing(policy, caller)

    async def reserve(self, hold: Hold) -> None:
        """Hold the amount, or raise BudgetExhausted; Unavailable while the file cannot be written (policy `closed`)."""
        if self.is_failing and hold.policy.on_store_outage == "closed":
            raise Unavailable("The budget store cannot be written at the moment.", retry_after_s=1.0)
        self._books.reserve(hold)
        if self._durable_holds:
            await asyncio.wrap_future(self._writer.flushed())

    @never_waits
    async def settle(self, hold: Hold, cost: Cost) -> None:
        """Charge the cost and release the rest."""
        self._books.settle(hold, cost)

    async def reap(self) -> int:
        """Charge expired holds in full."""
        return self._books.reap()

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        """Return the tenant's budgets."""
        return tuple(self._books.balances(policy))

    async def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        """Raise the limits of one account in its present window; it is in the file when this returns."""
        self._books.grant(policy, account, nano_usd, grant_id)
        await self.flush()

    async def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        """Grant what the account has spent in its present window; it is in the file when this returns."""
        self._books.reset(policy, account, grant_id)
        await self.flush()

    @property
    def is_failing(self) -> bool:
        """Tell whether the file could not be written at the last try."""
        return self._writer.is_failing

    async def flush(self) -> None:
        """Wait until everything so far is in the file."""
        await asyncio.wrap_future(self._writer.flushed())

    def close(self) -> None:
        """Write what is left and give the file up."""
        self._writer.close()
        os.close(self._lock)


class _Group:
    """The net effect of some changes: holds to insert, holds to delete, and the last state of each line."""

    def __init__(self) -> None:
        self._opened: dict[str, OpenHold] = {}
        self._closed: set[str] = set()
        self._lines: dict[LineKey, LineState] = {}

    def add(self, change: Change) -> None:
        if change.opened is not None:
            self._opened[change.opened.reservation_id] = change.opened
        if change.closed_id is not None and self._opened.pop(change.closed_id, None) is None:
            self._closed.add(change.closed_id)
        for state in change.lines:
            self._lines[state.key] = state

    def write(self, connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT OR REPLACE INTO ledger_holds VALUES (?, ?, ?, ?)",
            [_hold_row(hold) for hold in self._opened.values()],
        )
        connection.executemany("DELETE FROM ledger_holds WHERE reservation_id = ?", [(id_,) for id_ in self._closed])
        connection.executemany(
            "INSERT OR REPLACE INTO ledger_lines VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [
                (*one.key.account, one.key.window_id, one.ends_at_s, one.spent, one.unconfirmed, one.granted)
                for one in self._lines.values()
            ],
        )


def _hold_row(hold: OpenHold) -> tuple[str, int, float, str]:
    lines = [(line.key, line.ends_at_s) for line in hold.lines]
    return hold.reservation_id, hold.amount_nano_usd, hold.lease_until_s, msgspec.json.encode(lines).decode()


def _read(connection: sqlite3.Connection, now_s: float) -> tuple[list[Line], list[OpenHold]]:
    """Read all open holds, the lines of recent windows and of those holds; drop history that is older than 400 days."""
    connection.execute("DELETE FROM ledger_lines WHERE ends_at_s < ?", (now_s - KEEP_HISTORY_S,))
    rows = connection.execute(
        "SELECT reservation_id, amount_nano_usd, lease_until_s, lines FROM ledger_holds"
    ).fetchall()
    held = [(id_, amount, lease_until_s, _decode_lines(text)) for id_, amount, lease_until_s, text in rows]
    oldest_s = min((ends_at_s for *_, keys in held for _, ends_at_s in keys), default=now_s)
    lines: dict[LineKey, Line] = {}
    query = "SELECT * FROM ledger_lines WHERE ends_at_s >= ?"
    for *account, window_id, ends_at_s, spent, unconfirmed, granted in connection.execute(
        query, (min(oldest_s, now_s - KEEP_ENDED_S),)
    ):
        key = LineKey(Account(*account), window_id)
        lines[key] = Line(key, ends_at_s, spent=spent, unconfirmed=unconfirmed, granted=granted)
    holds = [
        OpenHold(id_, amount, until_s, tuple(lines.setdefault(key, Line(key, ends_at_s)) for key, ends_at_s in keys))
        for id_, amount, until_s, keys in held
    ]
    return list(lines.values()), holds


def _decode_lines(text: str) -> list[tuple[LineKey, float]]:
    found = []
    for (account, window_id), ends_at_s in _lines_decoder.decode(text):
        if len(account) == _ACCOUNT_BEFORE_USERS:
            account.insert(2, "")
        found.append((LineKey(Account(*account), window_id), ends_at_s))
    return found


def _lock(path: Path) -> int:
    """Take the file for this process; the lock goes with the process, however it ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as problem:
        raise ConfigurationError(
            str(path), "", f"cannot be created ({problem.strerror})", "check the folder"
        ) from problem
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as problem:
        os.close(handle)
        mend = "stop it, or use redis:// for several replicas"
        raise ConfigurationError(str(path), "", "another gateway keeps its books here", mend) from problem
    return handle
