"""`headgate models eval` on the bundled engines: accuracy by family, what is kept, what is listed, and the gate."""

import json
from pathlib import Path

import pytest

from backends.engines.bare_environment import SOURCE_ROOT
from gateway.cli import main

CONFIG = """
state: sqlite:var/headgate.db
tiers: {small: [one], large: [two, cloud]}
deployments:
  one: {recipe: bundled-small-int4}
  two: {recipe: bundled-large}
  cloud: {backend: remote, base_url: http://127.0.0.1:9/v1, model: m, price: {input_usd_per_m: 1, output_usd_per_m: 2}}
"""
SUITE = [
    {"question": "Sort these numbers: 7 3 9", "answer": "3 7 9", "family": "sort"},
    {"question": "What is 48 plus 37?", "answer": "85", "check": "number", "family": "add2"},
    {"question": "What is 2 plus 3?", "answer": "5", "check": "number", "family": "add1"},
]
EVAL = ["models", "eval", "--config", "headgate.yaml", "--suite", "suite.jsonl"]

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(
        not (SOURCE_ROOT / "backends" / "bundled" / "small-int4" / "openvino_model.bin").exists(),
        reason="the bundled weights are not here",
    ),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "headgate.yaml").write_text(CONFIG)
    (tmp_path / "suite.jsonl").write_text("".join(json.dumps(task) + "\n" for task in SUITE))
    return tmp_path


def placed(folder: Path, arguments: list[str]) -> list[str]:
    """Return the arguments with files in `folder`."""
    return [str(folder / part) if part.endswith((".yaml", ".jsonl")) else part for part in arguments]


def test_a_tier_is_evaluated_kept_listed_and_gated(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gate = ["--gate", "--least-accuracy", "0.9", "--json"]
    assert main(placed(folder, [*EVAL, *gate])) == 1
    found = json.loads(capsys.readouterr().out)
    assert {one["family"]: (one["accuracy"], one["reference_accuracy"]) for one in found["families"]} == {
        "sort": (1.0, 1.0),
        "add2": (0.0, 1.0),
        "add1": (1.0, 1.0),
    }
    assert found["shortfalls"] == ["accuracy 0.6667 is below 0.9"]
    assert found["subject"]["precision"] == "int4"
    assert found["subject"]["weights_digest"].startswith("blake2b:")
    assert 0 < found["speed"]["mean_cost_nano_usd"] < found["reference_speed"]["mean_cost_nano_usd"]
    assert found["speed"]["output_tokens_per_s"] > 0
    assert found["speed"]["ttft_ms_p50"] > 0

    assert (folder / "var" / "evaluations" / "bundled-small-int4.json").is_file()
    assert main(placed(folder, ["models", "list", "bundled-small-int4", "--config", "headgate.yaml", "--json"])) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert listed["evaluation"]["accuracy"] == found["accuracy"]
    assert main(placed(folder, ["models", "list", "bundled-small-int4", "--config", "headgate.yaml"])) == 0
    assert "✗" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--gate"], "nothing says what has to be reached"),
        (["--tier", "huge"], "has no tier 'huge'; name one of small, large"),
        (["--family", "none"], "has no family 'none'"),
        (["--url", "http://127.0.0.1:9"], "holds no key for the gateway"),
        (["--recipe", "none"], "there is no such recipe"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    assert main(placed(folder, [*EVAL, *more])) == 2
    complaint = capsys.readouterr().err
    assert says in complaint
    assert complaint.count("\n") == 1
