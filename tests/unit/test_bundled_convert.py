"""The converter refuses what it cannot convert with one line, and leaves nothing half-made behind."""

from pathlib import Path

import pytest

from backends.bundled.convert import ConversionError, convert, main


@pytest.fixture
def source(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name in ("config.json", "tokenizer_config.json", "model.safetensors"):
        (directory / name).write_text("{}")
    return directory


@pytest.mark.parametrize(
    ("missing", "complaint"),
    [
        ("config.json", "no config.json"),
        ("model.safetensors", "no weights"),
        ("tokenizer_config.json", "no tokenizer_config.json"),
    ],
)
def test_an_incomplete_directory_is_refused_by_the_name_of_what_it_lacks(
    source: Path, missing: str, complaint: str
) -> None:
    (source / missing).unlink()
    with pytest.raises(ConversionError, match=complaint):
        convert(source, source.parent / "out", "int4")


def test_an_unknown_precision_is_refused_with_the_known_ones(source: Path) -> None:
    with pytest.raises(ConversionError, match="choose one of int4, int8, fp16"):
        convert(source, source.parent / "out", "int3")


def test_an_existing_output_is_never_overwritten(source: Path) -> None:
    out = source.parent / "out"
    out.mkdir()
    with pytest.raises(ConversionError, match="exists already"):
        convert(source, out, "int4")


def test_outside_the_conversion_environment_one_line_says_so_and_nothing_is_left_behind(
    source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = source.parent / "out"
    assert main([str(source), "--out", str(out), "--precision", "fp16"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "optimum-cli: not found" in complaint
    assert [path.name for path in source.parent.iterdir()] == ["model"]
