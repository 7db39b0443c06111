"""Receipts in a real SQLite file: read while they wait and after, bounded by age and by size, small on disk."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.plan import Standing
from gateway.settings.retention import ReceiptRetention
from gateway.telemetry.log_reader import LogUnreadable
from gateway.telemetry.receipt_log import TRIM_EVERY, ReceiptLog, read_receipt
from router.decision import Inputs, decide
from router.receipt import Decided, decode_receipt
from tests.planning import EASY, declared, policy, two_tiers

AT = datetime(2026, 1, 2, tzinfo=UTC)
INPUTS = Inputs(declared(), policy(), EASY, Standing(10**9), two_tiers())
DECIDED = Decided("req_0", AT, "hash", INPUTS, decide(INPUTS))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "decisions.db"


@pytest.fixture
def log(file: Path) -> Iterator[ReceiptLog]:
    made = ReceiptLog(file, "w@1", "1.0", now_s=AT.timestamp)
    yield made
    made.close()


def count(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT count(*) FROM receipts").fetchone()[0])


def test_a_receipt_is_found_at_once_and_reads_the_same_from_the_file(log: ReceiptLog, file: Path) -> None:
    log.record(DECIDED)
    at_once = log.find("req_0")
    assert at_once is not None
    log.close()
    assert read_receipt(file, "req_0") == at_once
    receipt = decode_receipt(at_once)
    assert (receipt.outcome.tier, receipt.versions.router, receipt.versions.program) == ("small", "w@1", "1.0")
    assert read_receipt(file, "req_1") is None
    assert read_receipt(file.with_name("none.db"), "req_0") is None


def test_a_receipt_takes_less_than_a_kilobyte_on_disk(log: ReceiptLog, file: Path) -> None:
    log.record(DECIDED)
    log.close()
    with closing(sqlite3.connect(file)) as connection:
        (size,) = connection.execute("SELECT length(body) FROM receipts").fetchone()
    assert size < 1_000


def test_old_receipts_go(file: Path) -> None:
    log = ReceiptLog(file, "w@1", "1.0", ReceiptRetention(days=1), now_s=AT.timestamp)
    log.record(replace(DECIDED, id="req_old", decided_at=AT - timedelta(days=2)))
    log.record(DECIDED)
    log.close()
    assert count(file) == 1
    assert read_receipt(file, "req_old") is None


def test_the_oldest_go_when_all_take_too_much(file: Path) -> None:
    log = ReceiptLog(file, "w@1", "1.0", ReceiptRetention(max_bytes=20_000), now_s=AT.timestamp)
    for n in range(2 * TRIM_EVERY):
        log.record(replace(DECIDED, id=f"req_{n}"))
    log.close()
    assert count(file) < 2 * TRIM_EVERY - 500
    assert read_receipt(file, f"req_{2 * TRIM_EVERY - 1}") is not None
    assert read_receipt(file, "req_0") is None


def test_a_file_that_is_no_log_is_told(file: Path) -> None:
    file.write_text("not a database, at all, but long enough to look at" * 100)
    with pytest.raises(LogUnreadable, match="cannot be read as a log of decisions"):
        read_receipt(file, "req_0")
