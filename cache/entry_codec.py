"""Entries as bytes that tell whether they are whole: with a checksum, or sealed for their tenant.

An answer and its vector are two pieces, because an index is rebuilt from vectors alone. A piece begins with one byte,
plain or sealed; a piece that is damaged, in another's place, or cannot be opened reads as None.
"""

import hashlib

import msgspec
import numpy as np

from cache.sealing import Sealer
from core.cached import CachedAnswer, Entry, Vector

_PLAIN, _SEALED = b"\x00", b"\x01"
_DIGEST_BYTES = 16
_Placed = tuple[str, str, float, bytes]


class _Body(msgspec.Struct, array_like=True, frozen=True):
    """Everything but the vector; fields with defaults came later and are missing in what older versions wrote."""

    entry_id: str
    tenant: str
    scope: str
    exact_key: str
    normalised_key: str
    prompt: str
    encoder: str
    answer: CachedAnswer
    created_at_s: float
    expires_at_s: float
    tags: tuple[str, ...] = ()


_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_placed = msgspec.msgpack.Decoder(_Placed).decode


class EntryCodec:
    """Writes and reads pieces, sealed where a sealer is given; a piece in the other form is not read."""

    def __init__(self, sealer: Sealer | None = None) -> None:
        self._sealer = sealer

    def answer(self, entry: Entry) -> bytes:
        """Write everything but the vector.

        Raises:
            UnicodeError: the texts hold lone surrogates.
            OSError: the tenant's key cannot be read or made.
        """
        body = _Body(**{name: getattr(entry, name) for name in _Body.__struct_fields__})
        return self._closed(entry.tenant, entry.entry_id, "answer", _encode(body))

    def vector(self, entry: Entry) -> bytes:
        """Write what an index needs, the vector in float16; empty without a vector."""
        if entry.vector is None:
            return b""
        placed: _Placed = (entry.scope, entry.encoder, entry.expires_at_s, entry.vector.astype(np.float16).tobytes())
        return self._closed(entry.tenant, entry.entry_id, "vector", _encode(placed))

    def read_entry(self, tenant: str, answer: bytes, entry_id: str, vector: bytes | None) -> Entry | None:
        """Read an entry of that tenant and id from its two pieces."""
        text = self._opened(tenant, entry_id, "answer", answer)
        try:
            body = None if text is None else _decode_body(text)
        except msgspec.DecodeError:
            return None
        if body is None or (body.entry_id, body.tenant) != (entry_id, tenant):
            return None
        placed = self.read_vector(tenant, entry_id, vector) if vector else None
        fields = {name: getattr(body, name) for name in _Body.__struct_fields__}
        return Entry(vector=None if placed is None else placed[3], **fields)

    def read_vector(self, tenant: str, entry_id: str, piece: bytes) -> tuple[str, str, float, Vector] | None:
        """Read scope, encoder, expiry in Unix seconds, and the (d,) float32 vector."""
        text = self._opened(tenant, entry_id, "vector", piece)
        if text is None:
            return None
        try:
            scope, encoder, expires_at_s, packed = _decode_placed(text)
            vector = np.frombuffer(packed, dtype=np.float16).astype(np.float32)
        except (msgspec.DecodeError, ValueError):
            return None
        return scope, encoder, expires_at_s, vector

    def _closed(self, tenant: str, entry_id: str, part: str, text: bytes) -> bytes:
        if self._sealer is None:
            return _PLAIN + _digest(tenant, entry_id, part, text) + text
        return _SEALED + self._sealer.seal(tenant, entry_id, part, text)

    def _opened(self, tenant: str, entry_id: str, part: str, piece: bytes) -> bytes | None:
        kind, rest = piece[:1], piece[1:]
        if kind == _SEALED and self._sealer is not None:
            return self._sealer.open(tenant, entry_id, part, rest)
        if kind != _PLAIN or self._sealer is not None:
            return None
        text = rest[_DIGEST_BYTES:]
        return text if _digest(tenant, entry_id, part, text) == rest[:_DIGEST_BYTES] else None


def _digest(tenant: str, entry_id: str, part: str, text: bytes) -> bytes:
    place = "\x1f".join((tenant, entry_id, part)).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=_DIGEST_BYTES, key=hashlib.sha256(place).digest()).digest()
