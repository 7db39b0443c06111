"""Receipts in a real SQLite file: read while they wait and after, bounded by age and by size, small on disk."""

import dataclasses
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from core.plan import Standing
from gateway.settings.retention import ReceiptRetention
from gateway.telemetry.log_reader import LogUnreadable
from gateway.telemetry.receipt_blocks import DICTIONARIES, MIGRATIONS, read_receipt, read_receipts
from gateway.telemetry.receipt_log import TRIM_EVERY, ReceiptLog
from policies.sqlite_schema import open_database
from router.decision import Inputs, decide
from router.receipt import Decided, decode_receipt, encode_receipt, receipt_of
from tests.planning import EASY, chat, declared, policy, two_tiers

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
        return sum(len(keys) // 8 for (keys,) in connection.execute("SELECT keys FROM block_keys"))


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


def test_receipts_take_less_than_a_kilobyte_alone_and_a_quarter_of_it_together(file: Path) -> None:
    alone, together = file.with_name("alone.db"), file.with_name("together.db")
    for path, receipts in ((alone, 1), (together, 64)):
        log = ReceiptLog(path, "w@1", "1.0", now_s=AT.timestamp)
        for n in range(receipts):
            log.record(replace(DECIDED, id=f"req_{n}"))
        log.close()
    assert size(alone) < 1_000
    assert size(together) < 64 * 250


def size(file: Path) -> int:
    with closing(sqlite3.connect(file)) as connection:
        return int(connection.execute("SELECT sum(bytes) FROM blocks").fetchone()[0])


def test_of_many_blocks_those_asked_for_are_read_and_the_last_decision_on_a_request_counts(file: Path) -> None:
    for hash_of_prompt in ("first", "second"):
        log = ReceiptLog(file, "w@1", "1.0", now_s=AT.timestamp)
        for n in range(150):
            log.record(replace(DECIDED, id=f'req_{n} "\\ü', prompt_hash=hash_of_prompt))
        log.close()
    found = dict(read_receipts(file, [f'req_{n} "\\ü' for n in (0, 70, 149)] + ["req_7", "another"]))
    assert sorted(found) == [f'req_{n} "\\ü' for n in (0, 149, 70)]
    assert {decode_receipt(content).prompt_hash for content in found.values()} == {"second"}
    assert count(file) == 300


def test_every_receipt_of_a_block_is_as_it_was_whatever_policy_it_was_decided_by(log: ReceiptLog, file: Path) -> None:
    made = []
    for n, alias in enumerate(("auto", "auto", '","policy":=', "auto", 'x"policy":')):
        inputs = Inputs(
            declared(chat(user=alias)), dataclasses.replace(policy(), alias=alias), EASY, Standing(10**9), two_tiers()
        )
        made.append(Decided(f"req_{n}", AT, "", inputs, decide(inputs)))
        log.record(made[-1])
    log.close()
    for decided in made:
        assert read_receipt(file, decided.id) == encode_receipt(receipt_of(decided, "w@1", "1.0"))


def test_receipts_of_an_earlier_program_are_read_before_and_after_the_file_is_brought_up_to_date(file: Path) -> None:
    content = encode_receipt(receipt_of(replace(DECIDED, id="req_single"), "w@0", "0.9"))
    write_singly(file, {"req_single": content})
    assert read_receipt(file, "req_single") == content
    log = ReceiptLog(file, "w@1", "1.0", now_s=AT.timestamp)
    log.record(DECIDED)
    log.close()
    assert dict(read_receipts(file, ["req_single", "req_0", "req_none"])).keys() == {"req_single", "req_0"}
    assert read_receipt(file, "req_single") == content


def test_receipts_of_an_earlier_program_go_first_when_all_take_too_much(file: Path) -> None:
    content = encode_receipt(receipt_of(DECIDED, "w@0", "0.9"))
    write_singly(file, {f"req_single_{n}": content for n in range(20)})
    log = ReceiptLog(file, "w@1", "1.0", ReceiptRetention(max_bytes=2_000), now_s=AT.timestamp)
    log.record(DECIDED)
    log.close()
    assert read_receipt(file, "req_single_0") is None
    assert read_receipt(file, "req_0") is not None


def write_singly(file: Path, receipts: dict[str, bytes]) -> None:
    """Write them as the first schema had them: one row each."""
    insert = "INSERT INTO receipts (request_id, tenant, decided_at_ms, dictionary, body) VALUES (?, 'acme', ?, 0, ?)"
    with closing(open_database(file, "receipts", MIGRATIONS[:1])) as connection:
        for request_id, content in receipts.items():
            packing = zlib.compressobj(1, zdict=DICTIONARIES[0])
            row = (request_id, int(AT.timestamp() * 1000), packing.compress(content) + packing.flush())
            connection.execute(insert, row)


def test_old_receipts_go(file: Path) -> None:
    write_old = ReceiptLog(file, "w@1", "1.0", now_s=AT.timestamp)
    write_old.record(replace(DECIDED, id="req_old", decided_at=AT - timedelta(days=2)))
    write_old.close()
    log = ReceiptLog(file, "w@1", "1.0", ReceiptRetention(days=1), now_s=AT.timestamp)
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
