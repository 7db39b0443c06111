"""The digest that ties a measurement to its weights."""

from pathlib import Path

import pytest

from backends.engines.weights_digest import BLOCK_BYTES, MAX_BLOCKS, weights_digest
from core.errors import ConfigurationError


def digest(folder: Path, **files: bytes) -> str:
    for path in folder.iterdir():
        path.unlink()
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_bytes(content)
    return weights_digest(folder, "tiny")


def test_the_same_weights_have_the_same_digest_whatever_lies_beside_them(tmp_path: Path) -> None:
    one = digest(tmp_path, model_bin=b"weights", model_xml=b"graph")
    assert digest(tmp_path, model_xml=b"graph", model_bin=b"weights", README_md=b"words") == one
    assert one.startswith("blake2b:")


def test_another_byte_name_or_split_is_another_digest(tmp_path: Path) -> None:
    digests = [
        digest(tmp_path, model_bin=b"weights", model_xml=b"graph"),
        digest(tmp_path, model_bin=b"Weights", model_xml=b"graph"),
        digest(tmp_path, modal_bin=b"weights", model_xml=b"graph"),
        digest(tmp_path, model_bin=b"weightsg", model_xml=b"raph"),
        digest(tmp_path, model_bin=b"", model_xml=b"graph"),
    ]
    assert len(set(digests)) == len(digests)


@pytest.mark.parametrize("at", [0, BLOCK_BYTES, -1])
def test_a_file_of_few_blocks_is_read_to_its_last_byte(tmp_path: Path, at: int) -> None:
    content = bytearray(2 * BLOCK_BYTES + 5)
    before = digest(tmp_path, model_bin=bytes(content))
    content[at] = 1
    assert digest(tmp_path, model_bin=bytes(content)) != before


@pytest.mark.parametrize("change", [0, -1, "size"])
def test_of_a_large_file_the_ends_and_the_size_count(tmp_path: Path, change: int | str) -> None:
    content = bytearray(MAX_BLOCKS * BLOCK_BYTES + 5)
    before = digest(tmp_path, model_bin=bytes(content))
    if isinstance(change, int):
        content[change] = 1
    else:
        content.append(0)
    assert digest(tmp_path, model_bin=bytes(content)) != before


def test_one_file_is_weights_as_well(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"weights")
    assert weights_digest(tmp_path / "m.gguf", "tiny") == digest(tmp_path, m_gguf=b"weights")


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^recipe tiny: weights: .* has none; correct the path"):
        digest(tmp_path, README_md=b"words")
    with pytest.raises(ConfigurationError, match=r"^recipe tiny: weights: cannot be read"):
        weights_digest(tmp_path / "nowhere", "tiny")
