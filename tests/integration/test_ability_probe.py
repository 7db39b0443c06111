"""The conformance probe on the bundled small model's real engine, which can neither call tools nor keep to JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.engines.bare_environment import SOURCE_ROOT

NAME = "bundled-small-int4"
WEIGHTS = SOURCE_ROOT / "backends" / "bundled" / "small-int4"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not (WEIGHTS / "openvino_model.bin").exists(), reason="the bundled weights are not here"),
]


def headgate(folder: Path, *arguments: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "gateway", *arguments, "--config", str(folder / "headgate.yaml"), "--json"]
    environment = os.environ | {"PYTHONPATH": str(SOURCE_ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_the_bundled_model_is_found_to_do_neither_tools_nor_json(tmp_path: Path) -> None:
    (tmp_path / "headgate.yaml").write_text(
        "state: sqlite:state/h.db\ntiers: {small: [s]}\ndeployments: {s: {recipe: bundled-small-int4}}\n"
    )
    (probed,) = headgate(tmp_path, "models", "check", NAME, "--probe")
    assert (probed["tools"], probed["json"], probed["measured_context_tokens"]) == (False, False, None)
    assert {missed["ability"] for missed in probed["missed"]} >= {"tools", "json", "cyrillic", "context"}
    assert (tmp_path / "state" / "abilities" / f"{NAME}.json").is_file()
    (listed,) = headgate(tmp_path, "models", "list", NAME)
    assert listed["probed"] == probed
