"""How decision records lie on disk: up to 64 together in a compressed block, found by what the block holds.

Records of one moment repeat each other's policy, prices and forecasts: 64 together take a quarter of the bytes and of
the time that they take apart. A block is canonical receipts, one per line, without the policy in force, which stands in
a line of its own before the first receipt that was decided by it. `block_keys` holds eight bytes of each id in a block,
so that a record is found by reading those of all blocks (0.5 MB of 64,000 records). Records that earlier programs wrote
one by one stay in their table, are read from there, and go by the same retention.
"""

import hashlib
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from gateway.telemetry.log_reader import LogUnreadable
from policies.sqlite_schema import open_database, reading
from router.receipt import POLICY_KEY

COMPONENT = "receipts"
BLOCK_RECEIPTS = 64
DAY_MS = 86_400_000
KEY_BYTES = 8
POLICY_LINE = b"="
POLICY_ABOVE = POLICY_KEY + POLICY_LINE
COMPRESSION_LEVEL = 1
"""Level 6 would leave half the bytes in twice the time."""
RAW_DEFLATE = -15
"""Without zlib's own sum over the content, which takes a fifth of the time to compress: a record proves itself."""

_SCHEMA = """
CREATE TABLE receipts (
  id INTEGER PRIMARY KEY, request_id TEXT NOT NULL, tenant TEXT NOT NULL, decided_at_ms INTEGER NOT NULL,
  dictionary INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE UNIQUE INDEX receipts_by_request ON receipts (substr(request_id, -16));
CREATE INDEX receipts_by_time ON receipts (decided_at_ms);
"""
_BLOCKS = """
CREATE TABLE blocks (id INTEGER PRIMARY KEY, newest_ms INTEGER NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE block_keys (id INTEGER PRIMARY KEY, keys BLOB NOT NULL);
CREATE TABLE block_bodies (id INTEGER PRIMARY KEY, dictionary INTEGER NOT NULL, body BLOB NOT NULL);
"""
MIGRATIONS = (_SCHEMA, _BLOCKS)
_VERSION = "SELECT version FROM schema_versions WHERE component = ?"
_ADD = "INSERT INTO blocks (newest_ms, bytes) VALUES (?, ?)"
_ADD_KEYS = "INSERT INTO block_keys VALUES (?, ?)"
_ADD_BODY = "INSERT INTO block_bodies VALUES (?, ?, ?)"
_KEYS = "SELECT id, keys FROM block_keys ORDER BY id DESC"
_KEYS_WITH = "SELECT id, keys FROM block_keys WHERE instr(keys, ?) ORDER BY id DESC"
_BODY = "SELECT dictionary, body FROM block_bodies WHERE id = ?"
_SINGLE = "SELECT dictionary, body FROM receipts WHERE substr(request_id, -16) = ? AND request_id = ?"
_SIZES = "SELECT id, newest_ms, bytes FROM blocks ORDER BY id DESC"
_TRIM = tuple(f"DELETE FROM {table} WHERE id <= ?" for table in ("blocks", "block_keys", "block_bodies"))  # noqa: S608
_TRIM_OLD_SINGLE = "DELETE FROM receipts WHERE decided_at_ms < ?"
_TRIM_LARGE_SINGLE = """
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


class Written(msgspec.Struct, frozen=True):
    """A receipt to be kept: of which request, when in Unix milliseconds, its bytes, and of them the policy's."""

    request_id: str
    decided_at_ms: int
    content: bytes
    policy: bytes


class BlockFile:
    """The writer's side of one file; several processes may write it."""

    def __init__(self, path: Path) -> None:
        self._connection = open_database(path, COMPONENT, MIGRATIONS)

    def add(self, receipts: Sequence[Written]) -> None:
        """Write receipts in one transaction.

        Raises:
            sqlite3.Error: they were not written.
        """
        with self._connection:
            self._connection.execute("BEGIN")
            for start in range(0, len(receipts), BLOCK_RECEIPTS):
                self._add_block(receipts[start : start + BLOCK_RECEIPTS])

    def _add_block(self, receipts: Sequence[Written]) -> None:
        newest = len(DICTIONARIES) - 1
        body = _packed(_lines(receipts), DICTIONARIES[newest])
        keys = b"".join([_key(one.request_id) for one in receipts])
        newest_ms = max([one.decided_at_ms for one in receipts])
        number = self._connection.execute(_ADD, (newest_ms, len(body) + len(keys))).lastrowid
        self._connection.execute(_ADD_KEYS, (number, keys))
        self._connection.execute(_ADD_BODY, (number, newest, body))

    def trim(self, since_ms: int, max_bytes: int) -> None:
        """Remove what was decided before, and the oldest beyond so many bytes; raises sqlite3.Error."""
        kept = 0
        with self._connection:
            self._connection.execute("BEGIN")
            for number, newest_ms, size in self._connection.execute(_SIZES):
                kept += size
                if newest_ms < since_ms or kept > max_bytes:
                    for trim in _TRIM:
                        self._connection.execute(trim, (number,))
                    break
            self._connection.execute(_TRIM_OLD_SINGLE, (since_ms,))
            self._connection.execute(_TRIM_LARGE_SINGLE, (max(0, max_bytes - kept),))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def read_receipt(path: Path, request_id: str) -> bytes | None:
    """Return the canonical bytes of a receipt in a log, which may be in use, or None.

    Raises:
        LogUnreadable: the file is no log of receipts, or a newer program wrote it.
    """
    return dict(read_receipts(path, (request_id,))).get(request_id)


def read_receipts(path: Path, request_ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """Yield the canonical bytes of the receipts that a log holds of these requests, by request, newest blocks first.

    Raises:
        LogUnreadable: the file is no log of receipts, or a newer program wrote it.
    """
    if not path.exists():
        return
    try:
        with reading(path) as connection:
            yield from _found(connection, set(request_ids))
    except (sqlite3.Error, zlib.error, IndexError) as problem:
        raise LogUnreadable(f"{path} cannot be read as a log of decisions ({problem}).") from problem


def _found(connection: sqlite3.Connection, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    version = connection.execute(_VERSION, (COMPONENT,)).fetchone()
    if version is not None and version[0] > 1:
        for request_id, content in _found_in_blocks(connection, {_key(one): one for one in wanted}):
            if request_id in wanted:
                wanted.remove(request_id)
                yield request_id, content
    for request_id in wanted:
        row = connection.execute(_SINGLE, (request_id[-16:], request_id)).fetchone()
        if row is not None:
            yield request_id, zlib.decompressobj(zdict=DICTIONARIES[row[0]]).decompress(row[1])


def _found_in_blocks(connection: sqlite3.Connection, wanted: dict[bytes, str]) -> Iterator[tuple[str, bytes]]:
    one = next(iter(wanted), None) if len(wanted) == 1 else None
    blocks = connection.execute(_KEYS) if one is None else connection.execute(_KEYS_WITH, (one,))
    for number, keys in blocks:
        held = [keys[at : at + KEY_BYTES] for at in range(0, len(keys), KEY_BYTES)]
        if wanted.keys().isdisjoint(held):
            continue
        dictionary, body = connection.execute(_BODY, (number,)).fetchone()
        lines = b"\n%s\n" % _unpacked(body, DICTIONARIES[dictionary])
        for key in held:
            content = _line(lines, wanted[key]) if key in wanted else None
            if content is not None:
                yield wanted[key], content


def _lines(receipts: Sequence[Written]) -> bytes:
    """Return what a block holds; a policy stands there anew only where it differs from the receipt's before."""
    lines: list[bytes] = []
    policy = b""
    for one in receipts:
        if one.policy != policy:
            policy = one.policy
            lines.append(POLICY_LINE + policy)
        head, _, rest = one.content.partition(POLICY_KEY)
        lines.append(head + POLICY_ABOVE + rest[len(policy) :])
    return b"\n".join(lines)


def _line(lines: bytes, request_id: str) -> bytes | None:
    """Return the last receipt of a request, None where another id has the same key."""
    begin = lines.rfind(b'\n{"id":%s,' % msgspec.json.encode(request_id)) + 1
    if begin == 0:
        return None
    head, _, rest = lines[begin : lines.index(b"\n", begin)].partition(POLICY_ABOVE)
    policy = lines.rindex(b"\n" + POLICY_LINE, 0, begin) + 1 + len(POLICY_LINE)
    return head + POLICY_KEY + lines[policy : lines.index(b"\n", policy)] + rest


def _key(request_id: str) -> bytes:
    return hashlib.blake2b(request_id.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()


def _packed(content: bytes, dictionary: bytes) -> bytes:
    packing = zlib.compressobj(COMPRESSION_LEVEL, wbits=RAW_DEFLATE, zdict=dictionary)
    return packing.compress(content) + packing.flush()


def _unpacked(body: bytes, dictionary: bytes) -> bytes:
    return zlib.decompressobj(wbits=RAW_DEFLATE, zdict=dictionary).decompress(body)
