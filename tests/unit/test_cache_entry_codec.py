"""Pieces of entries: what older versions wrote is read, what is damaged or moved is not."""

import hashlib

import msgspec
import pytest

from cache.entry_codec import EntryCodec
from tests.caching import entry


def plain_piece(body: object) -> bytes:
    """Return a piece in clear, as it lies in Redis."""
    text = msgspec.msgpack.encode(body)
    place = hashlib.sha256(b"acme\x1fid-a\x1fanswer").digest()
    return b"\x00" + hashlib.blake2b(text, digest_size=16, key=place).digest() + text


def fields_of_the_first_version() -> list[object]:
    one = entry("a")
    return [
        one.entry_id, one.tenant, one.scope, one.exact_key, one.normalised_key, one.prompt, one.encoder, one.answer,
        one.created_at_s, one.expires_at_s,
    ]  # fmt: skip


def test_a_piece_without_tags_is_an_entry_without_tags() -> None:
    found = EntryCodec().read_entry("acme", plain_piece(fields_of_the_first_version()), "id-a", None)
    assert found is not None
    assert (found.prompt, found.tags) == ("prompt a", ())


def test_tags_are_kept() -> None:
    codec, tagged = EntryCodec(), entry("a", tags=("handbook",))
    found = codec.read_entry("acme", codec.answer(tagged), "id-a", codec.vector(tagged))
    assert found is not None
    assert found.tags == ("handbook",)


@pytest.mark.parametrize("body", [[], ["id-a", "acme"], {"a": 1}, "text", [*fields_of_the_first_version(), "no list"]])
def test_a_body_of_another_form_reads_as_none(body: object) -> None:
    assert EntryCodec().read_entry("acme", plain_piece(body), "id-a", None) is None
