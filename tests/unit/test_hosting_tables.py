"""What `headgate models list` and `engines list` print is whole in a terminal of 80 columns, which a pipe counts as."""

from pathlib import Path
from typing import Any

import pytest

from backends.engines.recipes import recipe_names
from gateway.cli import main
from gateway.commands.engines import print_engines


def engine(name: str, state: str, last_error: str | None = None) -> dict[str, Any]:
    work = {"queued": 12, "output_tokens_per_s": 10_000.0, "ttft_ms": 30_000.0}
    place = {"recipe": "qwen3-8b-bf16-llama-server", "kind": "llama-server", "devices": ["cuda:0", "cuda:1"]}
    counts = {"memory_bytes": 1 << 37, "requests": 128, "restarts": 14, "failures": 9}
    return {"name": name, "state": state, "work": work, "last_error": last_error} | place | counts


def test_recipes_are_listed_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--config", str(tmp_path / "none.yaml")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)
    words = [line.split() for line in lines]
    assert [row[0] for row in words if row and row[0] in recipe_names()] == list(recipe_names())
    assert ["bundled-small-int4", "openvino", "int4", "0.5", "cpu", "yes"] in words


def test_engines_are_listed_whole_with_their_last_error(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [engine("small-int4", "ready"), engine("large-full", "sleeping", "recipe large: gone; bring it back")]
    assert print_engines(rows, as_json=False) == 0
    out = capsys.readouterr().out
    words = [line.split() for line in out.splitlines()]
    assert "…" not in out
    assert ["small-int4", "ready", "128", "12", "10000", "30000", "14", "9"] in words
    place = "large-full: qwen3-8b-bf16-llama-server, llama-server on cuda:0, cuda:1, 131072 MiB"
    assert place in " ".join(out.split())
    assert "large-full: recipe large: gone; bring it back" in out
