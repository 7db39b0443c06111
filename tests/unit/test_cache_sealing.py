"""What is sealed opens in its own place with its own key only, and not at all once the key is shredded."""

from pathlib import Path

import numpy as np
import pytest

from cache.entry_codec import EntryCodec
from cache.sealing import Sealer, TenantKeys
from core.errors import ConfigurationError
from tests.caching import answer, entry


def sealer(folder: Path) -> Sealer:
    return Sealer(TenantKeys(folder))


def test_a_sealed_text_opens_in_its_own_place_only(tmp_path: Path) -> None:
    one = sealer(tmp_path)
    sealed = one.seal("acme", "id-a", "answer", b"secret")
    assert b"secret" not in sealed
    assert one.open("acme", "id-a", "answer", sealed) == b"secret"
    one.seal("other", "id-a", "answer", b"")
    for place in (("acme", "id-b", "answer"), ("acme", "id-a", "vector"), ("other", "id-a", "answer")):
        assert one.open(*place, sealed) is None


@pytest.mark.parametrize("at", [0, 11, 12, -1])
def test_a_changed_byte_is_noticed(tmp_path: Path, at: int) -> None:
    one = sealer(tmp_path)
    sealed = bytearray(one.seal("acme", "id-a", "answer", b"secret"))
    sealed[at] ^= 1
    assert one.open("acme", "id-a", "answer", bytes(sealed)) is None
    assert one.open("acme", "id-a", "answer", b"short") is None


def test_replicas_that_share_a_folder_share_keys_and_shredding(tmp_path: Path) -> None:
    one, other = sealer(tmp_path), sealer(tmp_path)
    sealed = one.seal("acme", "id-a", "answer", b"secret")
    kept = one.seal("other", "id-b", "answer", b"kept")
    assert other.open("acme", "id-a", "answer", sealed) == b"secret"
    assert one.shred("acme")
    assert not other.shred("acme")
    for replica in (one, other):
        assert replica.open("acme", "id-a", "answer", sealed) is None
        assert replica.open("other", "id-b", "answer", kept) == b"kept"
    assert other.open("acme", "id-a", "answer", one.seal("acme", "id-a", "answer", b"new")) == b"new"
    assert one.open("acme", "id-a", "answer", sealed) is None


def test_key_files_are_private_and_name_no_tenant(tmp_path: Path) -> None:
    sealer(tmp_path).seal("acme", "id-a", "answer", b"secret")
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert "acme" not in file.name


def test_a_damaged_key_file_opens_and_seals_nothing_and_is_not_replaced(tmp_path: Path) -> None:
    one = sealer(tmp_path)
    sealed = one.seal("acme", "id-a", "answer", b"secret")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"short")
    assert one.open("acme", "id-a", "answer", sealed) is None
    with pytest.raises(OSError, match="damaged"):
        one.seal("acme", "id-a", "answer", b"secret")
    assert file.read_bytes() == b"short"


def test_a_folder_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="keys cannot be kept") as refusal:
        TenantKeys(tmp_path / "file")
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("is_sealed", [False, True])
def test_pieces_come_back_whole_or_not_at_all(tmp_path: Path, is_sealed: bool) -> None:
    codec = EntryCodec(sealer(tmp_path) if is_sealed else None)
    kept = entry("a", answer=answer("Grüße"))
    text, vector = codec.answer(kept), codec.vector(kept)
    found = codec.read_entry("acme", text, "id-a", vector)
    assert found is not None
    assert (found.answer, found.prompt, found.scope) == (kept.answer, kept.prompt, kept.scope)
    assert found.vector is not None
    assert kept.vector is not None
    assert np.allclose(found.vector, kept.vector, atol=1e-3)
    assert (b"prompt a" in text) is not is_sealed
    assert codec.read_entry("acme", text[:-1], "id-a", vector) is None
    assert codec.read_entry("acme", text, "id-b", vector) is None
    assert codec.read_entry("other", text, "id-a", vector) is None
    assert codec.read_vector("acme", "id-a", text) is None
    assert codec.read_vector("acme", "id-a", b"") is None
    damaged = codec.read_entry("acme", text, "id-a", vector[:-1])
    assert damaged is not None
    assert damaged.vector is None


def test_plain_and_sealed_pieces_are_not_taken_for_each_other(tmp_path: Path) -> None:
    plain, sealed = EntryCodec(), EntryCodec(sealer(tmp_path))
    assert sealed.read_entry("acme", plain.answer(entry("a")), "id-a", b"") is None
    assert plain.read_entry("acme", sealed.answer(entry("a")), "id-a", b"") is None
