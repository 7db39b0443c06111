"""Entries as rows of the SQLite store, each with a checksum over its columns, sealed where a sealer is given."""

import hashlib
import struct
import zlib
from typing import Final

import msgspec
import numpy as np

from cache.entry_codec import EntryCodec
from cache.sealing import Sealer
from cache.shelf import label_of
from core.cached import CachedAnswer, Entry

COLUMNS = (
    "entry_id, tenant, scope, exact_key, normalised_key, prompt, vector, encoder, answer, created_at_s, expires_at_s,"
    " is_sealed, tags"
)
INSERT = (
    f"INSERT OR REPLACE INTO cache_entries ({COLUMNS}, size_bytes, cost_nano_usd, checksum)"  # noqa: S608 - constants
    f" VALUES ({'?,' * 15}?)"
)
SELECT = f"SELECT {COLUMNS}, checksum FROM cache_entries"  # noqa: S608 - constants
_encode_answer = msgspec.json.Encoder().encode
_decode_answer = msgspec.json.Decoder(CachedAnswer).decode

Row = tuple[str, str, str, str, str, str, bytes | None, str, bytes, float, float, int, str]
_SEALED: Final = 11
_TAGS: Final = 12
_OLD_BYTES: Final = 16
_numbers = struct.Struct("<ddB").pack
_number = struct.Struct("<I").pack


class RowCodec:
    """Writes and reads rows; a sealed row has its texts and its vector in sealed pieces and an empty prompt."""

    def __init__(self, sealer: Sealer | None = None) -> None:
        self._codec = None if sealer is None else EntryCodec(sealer)

    def row(self, entry: Entry) -> tuple[object, ...]:
        """Return the values for `INSERT`.

        Raises:
            UnicodeError: the texts hold lone surrogates.
            OSError: the tenant's key cannot be read or made.
        """
        if self._codec is None:
            vector = None if entry.vector is None else entry.vector.astype(np.float16).tobytes()
            prompt, tags, answer = entry.prompt, ",".join(entry.tags), _encode_answer(entry.answer)
        else:
            vector, prompt, tags, answer = self._codec.vector(entry) or None, "", "", self._codec.answer(entry)
        columns: Row = (
            entry.entry_id, entry.tenant, entry.scope, entry.exact_key, entry.normalised_key, prompt, vector,
            entry.encoder, answer, entry.created_at_s, entry.expires_at_s, int(self._codec is not None),
            tags,
        )  # fmt: skip
        label = label_of(entry)
        return (*columns, label.size_bytes, label.cost_nano_usd, _checksum(columns))

    def entry(self, row: tuple[object, ...]) -> Entry | None:
        """Rebuild an entry from a row of `SELECT`; None when it is damaged, or sealed otherwise than expected."""
        columns: Row = row[:-1]  # type: ignore[assignment]
        if not _is_whole(columns, row[-1]) or bool(columns[_SEALED]) != (self._codec is not None):
            return None
        entry_id, tenant, scope, exact_key, normalised_key, prompt, vector, encoder, answer = columns[:9]
        if self._codec is not None:
            return self._codec.read_entry(tenant, answer, entry_id, vector)
        return Entry(
            entry_id=entry_id,
            tenant=tenant,
            scope=scope,
            exact_key=exact_key,
            normalised_key=normalised_key,
            prompt=prompt,
            vector=None if vector is None else np.frombuffer(vector, dtype=np.float16).astype(np.float32),
            encoder=encoder,
            answer=_decode_answer(answer),
            created_at_s=columns[9],
            expires_at_s=columns[10],
            tags=tuple(filter(None, columns[_TAGS].split(","))),
        )


def _checksum(columns: Row) -> bytes:
    """Return the CRC-32 of all columns, which tells damage; it costs a tenth of a digest of their text."""
    entry_id, tenant, scope, exact_key, normalised_key, prompt, vector, encoder, answer = columns[:9]
    created_at_s, expires_at_s, is_sealed, tags = columns[9:]
    texts = "\x1f".join((entry_id, tenant, scope, exact_key, normalised_key, prompt, encoder, tags))
    summed = zlib.crc32(texts.encode("utf-8", "backslashreplace"))
    summed = zlib.crc32(answer, zlib.crc32(vector or b"", summed))
    return _number(zlib.crc32(_numbers(created_at_s, expires_at_s, is_sealed), summed))


def _is_whole(columns: Row, checksum: object) -> bool:
    if isinstance(checksum, bytes) and len(checksum) == _OLD_BYTES:
        return _old_checksum(columns) == checksum
    try:
        return _checksum(columns) == checksum
    except (TypeError, struct.error):  # damage may change a value's type
        return False


def _old_checksum(columns: Row) -> bytes:
    """Return the checksum of rows before version 4; it leaves out what is empty and later versions brought."""
    summed = columns if columns[_TAGS] else columns[: _TAGS if columns[_SEALED] else _SEALED]
    return hashlib.blake2b(repr(summed).encode("utf-8", "backslashreplace"), digest_size=_OLD_BYTES).digest()
