"""What is read from model files before anything loads them: precisions of safetensors, quantised folders and GGUF."""

import struct
from pathlib import Path
from typing import Any

import pytest

from backends.engines.model_files import check_precision, gguf_file, gguf_precision, hugging_face_precision
from core.errors import ConfigurationError
from tests.weights_files import QUANTISED, write_weights


def gguf(file: Path, file_type: int | None) -> Path:
    """Write a GGUF header with an architecture, a list of words, and a file type."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = [text("general.architecture") + struct.pack("<I", 8) + text("llama")]
    entries.append(text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b"))
    if file_type is not None:
        entries.append(text("general.file_type") + struct.pack("<II", 4, file_type))
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(entries)) + b"".join(entries))
    return file


@pytest.mark.parametrize(
    ("name", "precision"),
    [("awq", "int4"), ("gptq", "int4"), ("w4a16", "int4"), ("fp8", "fp8"), ("gpt-oss", "mxfp4")],
)
def test_a_quantised_folder_says_its_precision_in_its_config(tmp_path: Path, name: str, precision: str) -> None:
    assert hugging_face_precision(write_weights(tmp_path, QUANTISED[name]), "r") == precision


@pytest.mark.parametrize(("dtype", "precision"), [("BF16", "bf16"), ("F16", "fp16"), ("F32", "fp32")])
def test_whole_weights_say_theirs_in_the_safetensors_header(tmp_path: Path, dtype: str, precision: str) -> None:
    assert hugging_face_precision(write_weights(tmp_path, {}, dtype), "r") == precision


def test_eight_bits_are_told_from_four(tmp_path: Path) -> None:
    config: dict[str, Any] = {"quantization_config": {"quant_method": "gptq", "bits": 8}}
    assert hugging_face_precision(write_weights(tmp_path, config), "r") == "int8"


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    (write_weights(tmp_path, {}) / missing).unlink()
    with pytest.raises(
        ConfigurationError, match=r"recipe r: weights: .* has no .*; correct the path, or fetch it with"
    ):
        hugging_face_precision(tmp_path, "r")


def test_a_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (write_weights(tmp_path, {}) / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ConfigurationError, match=r"cannot be read: model.safetensors is no safetensors file"):
        hugging_face_precision(tmp_path, "r")


def test_a_broken_config_is_refused(tmp_path: Path) -> None:
    (write_weights(tmp_path, {}) / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        hugging_face_precision(tmp_path, "r")


def test_whole_weights_may_be_computed_in_another_half_but_never_pass_for_quantised_ones(tmp_path: Path) -> None:
    check_precision("bf16", "fp32", tmp_path, "r")
    with pytest.raises(ConfigurationError, match=r"says int4, but .* holds fp32 weights; write `precision: fp32`"):
        check_precision("int4", "fp32", tmp_path, "r")


@pytest.mark.parametrize(
    ("file_type", "precision"),
    [(0, "fp32"), (1, "fp16"), (2, "int4"), (7, "int8"), (15, "int4"), (17, "int8"), (18, "int8"), (32, "bf16")],
)
def test_a_gguf_file_says_its_precision(tmp_path: Path, file_type: int, precision: str) -> None:
    assert gguf_precision(gguf(tmp_path / "m.gguf", file_type), "r") == precision


@pytest.mark.parametrize("content", [b"", b"GGU", b"GGUF", b"garbage of some length, certainly no header"])
def test_garbage_is_no_gguf_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"recipe r: weights: .*m.gguf is no GGUF file"):
        gguf_precision(tmp_path / "m.gguf", "r")


def test_a_gguf_file_without_a_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"it has no general.file_type"):
        gguf_precision(gguf(tmp_path / "m.gguf", None), "r")


def test_the_gguf_file_is_found_in_its_folder_or_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"has 0 GGUF files; name the .gguf file"):
        gguf_file(tmp_path, "r")
    first = gguf(tmp_path / "m-00001-of-00002.gguf", 1)
    gguf(tmp_path / "m-00002-of-00002.gguf", 1)
    assert gguf_file(tmp_path, "r") == gguf_file(first, "r") == first
    gguf(tmp_path / "other.gguf", 1)
    with pytest.raises(ConfigurationError, match="has 2 GGUF files"):
        gguf_file(tmp_path, "r")
