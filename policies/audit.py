"""The audit log: who changed what, when, from where; append-only, chained by keyed hashes, and never a secret.

Each row holds HMAC(pepper's derivative, previous hash and this row), so that a changed, inserted or missing row breaks
the chain from there on, also for someone who can write the file but does not have the pepper. Rows cut off at the end
leave a valid chain: note the head that `verify` prints, and pass it to a later `verify`. Values are kept as keyed
digests only. SQLite triggers refuse changes; when there are `max_rows`, the oldest half is dropped in the same step in
which the place where the chain now begins is written down under a seal, so that nobody else can move it.

Failure rule: closed. A change does not begin while the log cannot be written.
"""

import hmac
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path
from typing import Literal

import msgspec

from core.clock import Clock
from core.errors import Unavailable
from policies.sqlite_schema import open_database

MAX_ROWS = 100_000
MAX_TEXT = 200
GENESIS = bytes(32)
_SCHEMA = """
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, at TEXT NOT NULL, actor TEXT NOT NULL, role TEXT NOT NULL, source TEXT NOT NULL,
    action TEXT NOT NULL, target TEXT NOT NULL, before TEXT, after TEXT, outcome TEXT NOT NULL, hash BLOB NOT NULL);
CREATE TABLE audit_start (seq INTEGER NOT NULL, hash BLOB NOT NULL, seal BLOB NOT NULL);
INSERT INTO audit_start VALUES (0, zeroblob(32), zeroblob(32));
CREATE TRIGGER audit_never_changes BEFORE UPDATE ON audit
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_drops_old_rows_only BEFORE DELETE ON audit WHEN OLD.seq > (SELECT seq FROM audit_start)
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
CREATE TRIGGER audit_start_moves_on BEFORE UPDATE ON audit_start WHEN NEW.seq < OLD.seq
    BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
"""
_COLUMNS = "seq, at, actor, role, source, action, target, before, after, outcome, hash"
_INSERT = f"INSERT INTO audit ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608  constants
_SELECT = f"SELECT {_COLUMNS} FROM audit"  # noqa: S608  a constant

Outcome = Literal["done", "failed"]


@dataclass(frozen=True, slots=True)
class Actor:
    """Who makes a change: a name (a key's id, `key_file`, or a user of the machine), a role, and from where."""

    name: str
    role: str
    source: str


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row; `before` and `after` are keyed digests of what was changed, None where there was nothing."""

    seq: int
    at: str
    actor: str
    role: str
    source: str
    action: str
    target: str
    before: str | None
    after: str | None
    outcome: str
    hash: bytes = field(repr=False)


@dataclass(slots=True)
class Change:
    """A change under way: set what it leaves behind (`after`), and its target where that is known late."""

    target: str
    before: object = None
    after: object = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `verify` found: rows checked, the head (last number and hash), and the first thing wrong."""

    rows: int
    head_seq: int
    head_hash: bytes
    problem: str | None

    @property
    def head(self) -> str:
        """Return the head as it is written down: `SEQ:HASH`."""
        return f"{self.head_seq}:{self.head_hash.hex()}"


class AuditLog:
    """The log in one SQLite file; every entry is on its way to the disk when `append` returns."""

    def __init__(self, path: Path, pepper: bytes, clock: Clock, max_rows: int = MAX_ROWS) -> None:
        """Open or create the file; raises ConfigurationError when it cannot be used."""
        self._connection = open_database(path, "audit", (_SCHEMA,))
        self._connection.execute("PRAGMA synchronous=FULL")
        self._key = hmac.digest(pepper, b"headgate audit", "sha256")
        self._clock = clock
        self._max_rows = max_rows

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @contextmanager
    def recording(self, actor: Actor, action: str, target: str, before: object = None) -> Iterator[Change]:
        """Record the change that the body makes, whether it is done or fails.

        Raises:
            Unavailable: the log cannot be written; the body does not run.
        """
        self.check_writable()
        change = Change(target, before)
        try:
            yield change
        except BaseException:
            self.append(actor, action, change, "failed")
            raise
        self.append(actor, action, change, "done")

    def check_writable(self) -> None:
        """Raise Unavailable when nothing could be written now."""
        with self._writing():
            pass

    def append(self, actor: Actor, action: str, change: Change, outcome: Outcome) -> AuditEntry:
        """Write one entry at the end of the chain."""
        with self._writing():
            seq, previous = self._head()
            entry = AuditEntry(
                seq=seq + 1,
                at=self._clock.now().isoformat(),
                actor=actor.name[:MAX_TEXT],
                role=actor.role[:MAX_TEXT],
                source=actor.source[:MAX_TEXT],
                action=action[:MAX_TEXT],
                target=change.target[:MAX_TEXT],
                before=self.digest(change.before),
                after=self.digest(change.after),
                outcome=outcome,
                hash=b"",
            )
            row = astuple(entry)[:-1]
            entry = replace(entry, hash=self._hash(previous, row))
            self._connection.execute(_INSERT, (*row, entry.hash))
            self._drop_oldest(entry.seq)
        return entry

    def digest(self, value: object) -> str | None:
        """Return a keyed digest of a value (128 bits in hex), which tells equal from different and nothing else."""
        if value is None:
            return None
        text = msgspec.json.encode(value, order="deterministic", enc_hook=str)
        return hmac.digest(self._key, b"value" + text, "sha256")[:16].hex()

    def entries(self, last: int) -> list[AuditEntry]:
        """Return the newest entries, oldest first."""
        with _translated():
            rows = self._connection.execute(f"{_SELECT} ORDER BY seq DESC LIMIT ?", (last,)).fetchall()
        return [AuditEntry(*row) for row in reversed(rows)]

    def verify(self, expected_head: tuple[int, bytes] | None = None) -> Verdict:
        """Follow the chain from its beginning, and check that a head noted earlier is part of it."""
        with _translated():
            seq, previous, seal = self._connection.execute("SELECT seq, hash, seal FROM audit_start").fetchone()
            is_sealed = (seq, previous) == (0, GENESIS) or hmac.compare_digest(self._seal(seq, previous), seal)
            problem, rows = None if is_sealed else "the place where the log begins was moved", 0
            is_there = expected_head is None or expected_head == (seq, previous)
            for row in self._connection.execute(f"{_SELECT} ORDER BY seq") if is_sealed else ():
                if row[0] != seq + 1:
                    problem = f"entry {seq + 1} is missing"
                elif not hmac.compare_digest(self._hash(previous, row[:-1]), row[-1]):
                    problem = f"entry {row[0]} is not what was written"
                if problem is not None:
                    break
                rows, seq, previous = rows + 1, row[0], row[-1]
                is_there = is_there or expected_head == (seq, previous)
        if problem is None and not is_there and expected_head is not None:
            problem = f"the head {expected_head[0]} that was noted earlier is not part of the log"
        return Verdict(rows, seq, previous, problem)

    def _head(self) -> tuple[int, bytes]:
        query = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
        found = self._connection.execute(query).fetchone()
        seq, digest = found or self._connection.execute("SELECT seq, hash FROM audit_start").fetchone()
        return seq, digest

    def _hash(self, previous: bytes, row: tuple[object, ...]) -> bytes:
        return hmac.digest(self._key, b"entry" + previous + msgspec.json.encode(row), "sha256")

    def _seal(self, seq: int, digest: bytes) -> bytes:
        return hmac.digest(self._key, b"start" + digest + str(seq).encode(), "sha256")

    def _drop_oldest(self, last_seq: int) -> None:
        (start,) = self._connection.execute("SELECT seq FROM audit_start").fetchone()
        if last_seq - start <= self._max_rows:
            return
        keep_after = last_seq - self._max_rows // 2
        where = "SELECT seq, hash FROM audit WHERE seq = ?"
        place = self._connection.execute(where, (keep_after,)).fetchone()
        moved = (*place, self._seal(*place))
        self._connection.execute("UPDATE audit_start SET seq = ?, hash = ?, seal = ?", moved)
        self._connection.execute("DELETE FROM audit WHERE seq <= ?", (keep_after,))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with _translated(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            yield


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as problem:
        raise Unavailable("The audit log cannot be used, so nothing is changed.", retry_after_s=1.0) from problem
