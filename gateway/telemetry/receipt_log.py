"""Decision records in SQLite, compressed, written in groups by a thread of its own; never in the way of a request.

What waits to be written can be read already. When the queue is full (the disk is slow or gone) receipts are dropped and
counted. They have a retention of their own: the oldest go when they are too old, or when all together take too much.
"""

import logging
import sqlite3
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from core.hand_over import HandOver
from gateway.settings.retention import ReceiptRetention
from gateway.telemetry.log_reader import LogUnreadable
from policies.sqlite_schema import open_database, reading
from router.receipt import Decided, encode_receipt, receipt_of

logger = logging.getLogger("headgate.receipt_log")
MAX_QUEUED = 10_000
GROUP_RECEIPTS = 500
GROUP_WAIT_S = 0.2
TRIM_EVERY = 2_000
DAY_MS = 86_400_000
COMPRESSION_LEVEL = 1
"""Of 2.5 KB, level 1 with the dictionary leaves 0.8 KB in a third of the time of level 6."""

_SCHEMA = """
CREATE TABLE receipts (
  id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, tenant TEXT NOT NULL, decided_at_ms INTEGER NOT NULL,
  dictionary INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX receipts_by_request ON receipts (substr(request_id, -16));
CREATE INDEX receipts_by_time ON receipts (decided_at_ms);
"""
_INSERT = "INSERT OR REPLACE INTO receipts (request_id, tenant, decided_at_ms, dictionary, body) VALUES (?, ?, ?, ?, ?)"
_FIND = "SELECT dictionary, body FROM receipts WHERE substr(request_id, -16) = ? AND request_id = ?"
_TRIM_OLD = "DELETE FROM receipts WHERE decided_at_ms < ?"
_TRIM_LARGE = """
DELETE FROM receipts WHERE id <= (
  SELECT id FROM (SELECT id, sum(length(body)) OVER (ORDER BY id DESC) AS bytes FROM receipts) WHERE bytes > ?
  ORDER BY id DESC LIMIT 1
)
"""
# What every receipt repeats, so that small ones compress, too. Never change an entry: written receipts need it.
DICTIONARIES = (
    b'","price":{"input_pico_usd":,"output_pico_usd":,"cached_input_pico_usd":null,"reasoning_pico_usd":null,'
    b'"request_nano_usd":0,"source":"configuration"},"readiness":"ready","context_tokens":null,"max_output_tokens":'
    b'null,"expected_output_tokens":256,"retry_after_s":1.0,"forecast":{"queue_ms":0.0,"base_ms":,'
    b'"ms_per_input_token":,"ms_per_output_token":,"predicted_quality":0.,"ttft_ms":null,"total_ms":null,"late_ratio":'
    b'0.0,"expected_nano_usd":,"worst_case_nano_usd":,"excluded_by":null},{"deployment":"","tier":"large",'
    b'"max_tokens":,"sent_max_tokens":null,"worst_case_nano_usd":,"input_nano_usd":,"weighing":{"candidates":[],'
    b'"floor":0.5,"shadow_price_per_usd":0.0,"give_way":["quality","cost","latency"]},"refusal":null},"versions":{'
    b'"policy":"","router":"bundled@","prices":"","program":"0.1.0"},"schema":1},"complexity":{"p_small_suffices":0.,'
    b'"source":"model:bundled@;no_vector","standing":{"free_nano_usd":,"when_exhausted":"reject","resets_at":"2026-",'
    b'"free_by_tier":{},"spending":[{"account":"","starts_at":"2026-","ends_at":"2026-","limit_nano_usd":,'
    b'"spent_nano_usd":,"rolling":false}]},"tiers":[["small",[""]],["large",[""]]],"deployments":[{"name":"","model":"'
    b'","steering":{"floor":null,"knob":"quality","shadow_price_per_usd":0.0},"session":{"tier":"","deployment":"",'
    b'"input_tokens":,"turns":1,"easy_turns":0}},"outcome":{"reason":"score","tier":"small","degraded_from":null,'
    b'"rule":null,"hold":null,"steps":[{"policy":{"tenant":"","version":"","alias":"auto","asked":"auto","tiers":['
    b'"small","large"],"deployments":[],"routing":{"quality":null,"max_large_share":null,"target_cost_nano_usd":null,'
    b'"sessions":{"enabled":true,"ttl_s":1800,"downgrade_after":3,"follow_up_chars":60},"rules":[]},"sla":[["small",{'
    b'"ttft_ms":null,"total_ms":null,"min_output_tokens_per_s":null}]],"when_loading":"small","fallback":true},'
    b'{"id":"req_","decided_at":"2026-","prompt_hash":"","inputs":{"facts":{"model":"auto","path":'
    b'"/v1/chat/completions","user":null,"tags":[],"stream":false,"has_tools":false,"has_media":false,'
    b'"response_format":"text","input_tokens":,"max_tokens":null,"n":1,"script":"latin","non_latin_ratio":0.0,'
    b'"ends_in":"user","turns":0,"last_user_chars":,"deadline_ms":null,"read_timeout_ms":null},',
)


class ReceiptLog:
    """Keeps receipts in one SQLite file; `router` and `program` are the versions by which is decided here."""

    def __init__(
        self,
        path: Path,
        router: str,
        program: str,
        retention: ReceiptRetention | None = None,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.router = router
        self.program = program
        self._path = path
        self._retention = retention or ReceiptRetention()
        self._now_s = now_s
        self._connection = open_database(path, "receipts", (_SCHEMA,))
        self._queue: HandOver[Decided] = HandOver(GROUP_WAIT_S, GROUP_RECEIPTS)
        self._waiting: dict[str, Decided] = {}
        self.dropped = 0
        self._thread = threading.Thread(target=self._write, name="receipt-log", daemon=True)
        self._thread.start()

    def record(self, decided: Decided) -> None:
        """Queue one decision, or count it as dropped."""
        if len(self._waiting) >= MAX_QUEUED:
            self.dropped += 1
            return
        self._waiting[decided.id] = decided
        self._queue.put(decided)

    def find(self, request_id: str) -> bytes | None:
        """Return the canonical bytes of a request's receipt, or None when there is none; for any thread."""
        waiting = self._waiting.get(request_id)
        return read_receipt(self._path, request_id) if waiting is None else self._content(waiting)

    def close(self) -> None:
        """Write what is queued and close the file."""
        self._queue.close()
        self._thread.join(timeout=5.0)

    def _write(self) -> None:
        going_on, since_trimmed = True, TRIM_EVERY
        while going_on:
            group, going_on = self._queue.take()
            since_trimmed += len(group)
            try:
                self._connection.execute("BEGIN")
                self._connection.executemany(_INSERT, (self._row(decided) for decided in group))
                if since_trimmed >= TRIM_EVERY:
                    self._trim()
                    since_trimmed = 0
                self._connection.execute("COMMIT")
            except (sqlite3.Error, OverflowError) as problem:
                self.dropped += len(group)
                logger.warning("receipts were not written", extra={"receipts": len(group), "problem": str(problem)})
                if self._connection.in_transaction:
                    self._connection.rollback()
            for decided in group:
                self._waiting.pop(decided.id, None)
        self._connection.close()

    def _trim(self) -> None:
        self._connection.execute(_TRIM_OLD, (int(self._now_s() * 1000 - self._retention.days * DAY_MS),))
        self._connection.execute(_TRIM_LARGE, (self._retention.max_bytes,))

    def _content(self, decided: Decided) -> bytes:
        return encode_receipt(receipt_of(decided, self.router, self.program))

    def _row(self, decided: Decided) -> tuple[str, str, int, int, bytes]:
        newest = len(DICTIONARIES) - 1
        body = _packed(self._content(decided), DICTIONARIES[newest])
        tenant = decided.inputs.policy.tenant_policy.tenant
        return decided.id, tenant, int(decided.decided_at.timestamp() * 1000), newest, body


def read_receipt(path: Path, request_id: str) -> bytes | None:
    """Return the canonical bytes of a receipt in a log, which may be in use, or None.

    Raises:
        LogUnreadable: the file is no log of receipts, or a newer program wrote it.
    """
    if not path.exists():
        return None
    try:
        with reading(path) as connection:
            row = connection.execute(_FIND, (request_id[-16:], request_id)).fetchone()
        return None if row is None else _unpacked(row[1], DICTIONARIES[row[0]])
    except (sqlite3.Error, zlib.error, IndexError) as problem:
        raise LogUnreadable(f"{path} cannot be read as a log of decisions ({problem}).") from problem


def read_receipts(path: Path, request_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the canonical bytes of the receipts that a log holds of these requests, by request.

    Raises:
        sqlite3.Error, zlib.error: the file cannot be read.
    """
    if not path.exists():
        return
    with reading(path) as connection:
        for request_id in request_ids:
            row = connection.execute(_FIND, (request_id[-16:], request_id)).fetchone()
            if row is not None:
                yield request_id, _unpacked(row[1], DICTIONARIES[row[0]])


def _packed(content: bytes, dictionary: bytes) -> bytes:
    packing = zlib.compressobj(COMPRESSION_LEVEL, zdict=dictionary)
    return packing.compress(content) + packing.flush()


def _unpacked(body: bytes, dictionary: bytes) -> bytes:
    return zlib.decompressobj(zdict=dictionary).decompress(body)
