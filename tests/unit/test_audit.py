"""The audit log: nothing is left out, nothing can be altered unseen, and no secret is in it."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.clock import ManualClock
from core.errors import Unavailable
from policies.audit import Actor, AuditLog

PEPPER = bytes(range(32))
ACTOR = Actor("k1", "owner", "192.0.2.1")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.db"


@pytest.fixture
def log(path: Path) -> Iterator[AuditLog]:
    with closing(AuditLog(path, PEPPER, ManualClock())) as log:
        yield log


def record(log: AuditLog, target: str = "t", after: object = None) -> None:
    with log.recording(ACTOR, "key.create", target) as change:
        change.after = after


def tamper(path: Path, *statements: str) -> None:
    """Change the file as someone does who has it but not the pepper, and drops the triggers first."""
    with closing(sqlite3.connect(path)) as connection, connection:
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {name}")
        for statement in statements:
            connection.execute(statement)


def test_a_change_is_recorded_with_who_what_when_and_from_where(log: AuditLog) -> None:
    with log.recording(ACTOR, "key.revoke", "k9", {"valid": True}) as change:
        change.after = {"valid": False}
    (entry,) = log.entries(10)
    assert (entry.actor, entry.role, entry.source) == ("k1", "owner", "192.0.2.1")
    assert (entry.seq, entry.at, entry.action) == (1, "2026-01-01T00:00:00+00:00", "key.revoke")
    assert (entry.target, entry.outcome) == ("k9", "done")
    assert entry.before == log.digest({"valid": True})
    assert entry.after == log.digest({"valid": False})
    assert entry.before != entry.after


def test_a_change_that_fails_is_recorded_as_failed(log: AuditLog) -> None:
    with pytest.raises(ValueError, match="no"), log.recording(ACTOR, "key.create", "t"):
        raise ValueError("no")
    assert [entry.outcome for entry in log.entries(10)] == ["failed"]


def test_nothing_is_changed_while_the_log_cannot_be_written(log: AuditLog, path: Path) -> None:
    log.close()
    done: list[int] = []
    with pytest.raises(Unavailable), log.recording(ACTOR, "key.create", "t"):
        done.append(1)
    assert not done


def test_values_are_kept_as_digests_only(log: AuditLog, path: Path) -> None:
    record(log, after={"note": "visible-nowhere"})
    log.close()
    assert b"visible-nowhere" not in b"".join(one.read_bytes() for one in path.parent.iterdir())


def test_the_newest_entries_come_oldest_first(log: AuditLog) -> None:
    for number in range(5):
        record(log, f"t{number}")
    assert [entry.target for entry in log.entries(2)] == ["t3", "t4"]


def test_an_untouched_log_is_right_and_goes_on_after_a_restart(log: AuditLog, path: Path) -> None:
    record(log)
    with closing(AuditLog(path, PEPPER, ManualClock())) as other:
        record(other)
        record(log)
        verdict = other.verify()
    assert (verdict.rows, verdict.head_seq, verdict.problem) == (3, 3, None)


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE audit SET actor = 'someone else' WHERE seq = 2", "entry 2 is not what was written"),
        ("UPDATE audit SET outcome = 'failed' WHERE seq = 2", "entry 2 is not what was written"),
        ("DELETE FROM audit WHERE seq = 2", "entry 2 is missing"),
        ("DELETE FROM audit WHERE seq = 1", "entry 1 is missing"),
        ("UPDATE audit_start SET seq = 1", "the place where the log begins was moved"),
    ],
)
def test_what_was_altered_is_found(log: AuditLog, path: Path, statement: str, problem: str) -> None:
    for _ in range(3):
        record(log)
    tamper(path, statement)
    assert log.verify().problem == problem


def test_rows_that_were_swapped_are_found(log: AuditLog, path: Path) -> None:
    record(log, "a")
    record(log, "b")
    tamper(path, "UPDATE audit SET seq = -seq", "UPDATE audit SET seq = 3 + seq")
    assert log.verify().problem == "entry 1 is not what was written"


def test_entries_cut_off_at_the_beginning_are_found(log: AuditLog, path: Path) -> None:
    for _ in range(3):
        record(log)
    move = "UPDATE audit_start SET (seq, hash) = (SELECT seq, hash FROM audit WHERE seq = 2)"
    tamper(path, move, "DELETE FROM audit WHERE seq <= 2")
    assert log.verify().problem == "the place where the log begins was moved"


def test_entries_cut_off_at_the_end_are_found_by_a_head_noted_before(log: AuditLog, path: Path) -> None:
    for _ in range(3):
        record(log)
    noted = log.verify()
    record(log)
    assert log.verify((noted.head_seq, noted.head_hash)).problem is None
    tamper(path, "DELETE FROM audit WHERE seq > 2")
    assert log.verify().problem is None
    assert log.verify((noted.head_seq, noted.head_hash)).problem is not None


def test_a_log_written_under_another_pepper_is_not_taken_for_right(log: AuditLog, path: Path) -> None:
    record(log)
    with closing(AuditLog(path, bytes(32), ManualClock())) as other:
        assert other.verify().problem == "entry 1 is not what was written"


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'x'", "DELETE FROM audit"])
def test_the_file_itself_refuses_changes(log: AuditLog, path: Path, statement: str) -> None:
    record(log)
    with closing(sqlite3.connect(path)) as connection, pytest.raises(sqlite3.DatabaseError, match="append-only"):
        connection.execute(statement)


def test_a_full_log_drops_its_oldest_half_and_stays_a_chain(path: Path) -> None:
    with closing(AuditLog(path, PEPPER, ManualClock(), max_rows=10)) as log:
        for number in range(35):
            record(log, f"t{number}")
            assert len(log.entries(100)) <= 10
        verdict = log.verify()
        assert (verdict.head_seq, verdict.problem) == (35, None)
        assert log.entries(100)[-1].target == "t34"


def test_long_texts_are_cut(log: AuditLog) -> None:
    record(log, "x" * 10_000)
    assert len(log.entries(1)[0].target) == 200
    assert log.verify().problem is None
