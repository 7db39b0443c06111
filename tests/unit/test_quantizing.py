"""Quantising: prompts in every form that is exported, what is held out, the recipe, and one line for what cannot be."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from backends.bundled import quantize
from backends.engines.recipes import load_recipe
from core.errors import ConfigurationError
from gateway.cli import main
from gateway.hosting.quantizing import Order, check_order, full_precision, load_prompts, make, recipe_text, split
from policies.safe_yaml import load_yaml

SAID = [
    {"prompt": "a"},
    {"question": "b"},
    {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "c"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "d"}]}]},
    {"messages": [{"role": "user", "parts": [{"type": "text", "content": "e"}]}]},
]


def prompts_file(folder: Path, lines: list[object]) -> Path:
    file = folder / "prompts.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.fixture
def order(tmp_path: Path) -> Order:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'headgate models convert: it broke; mend it' >&2\nexit 1\n")
    python.chmod(0o755)
    like = load_recipe("bundled-large", load_yaml)
    return Order(tmp_path / "hf", tmp_path / "int4", tmp_path / "full", like, "awq", python)


def test_prompts_are_read_as_written_as_sent_and_as_spans_record_them(tmp_path: Path) -> None:
    found = load_prompts(prompts_file(tmp_path, SAID * 2))
    assert [one[-1].content for one in found[:5]] == ["a", "b", "c", "d", "e"]
    assert [turn.role for turn in found[2]] == ["system", "user"]


def test_every_fifth_prompt_is_held_out(tmp_path: Path) -> None:
    kept, suite = split(load_prompts(prompts_file(tmp_path, SAID * 3)), "prompts.jsonl")
    assert [one[-1].content for one in kept] == ["a", "b", "c", "d"] * 3
    assert [task.conversation[0].content for task in suite.tasks] == ["e", "e", "e"]
    assert all(task.answer is None for task in suite.tasks)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (SAID, "has 5 prompts; give 10 to 10000"),
        ([*SAID * 2, {"messages": []}], "line 11: holds no text"),
        ([*SAID * 2, {"messages": [{"role": "tool", "content": "x"}]}], "line 11: invalid enum value 'tool'"),
        ([*SAID * 2, 3], "line 11: expected `object`, got `int`"),
    ],
)
def test_prompts_that_cannot_be_used_are_one_line(tmp_path: Path, lines: list[object], says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_prompts(prompts_file(tmp_path, lines))
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_what_cannot_be_quantised_is_refused_before_anything_runs(order: Order) -> None:
    check_order(order)
    for wrong, says in (
        (replace(order, like=load_recipe("qwen3-8b-transformers", load_yaml)), "nothing quantises for transformers"),
        (
            replace(order, method="scale-estimation", like=load_recipe("qwen3-32b-vllm", load_yaml)),
            "there is no scale-estimation for vllm; choose one of awq, gptq, rtn",
        ),
        (replace(order, python=order.out), "there is no conversion environment; run `make models`"),
        (replace(order, out=order.python), "exists already"),
        (replace(order, out=order.out / "deep" / "er"), "its folder does not exist"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            check_order(wrong)
        assert says in caught.value.message


def test_a_tool_that_fails_is_its_own_line(order: Order) -> None:
    with pytest.raises(ConfigurationError, match="it broke; mend it") as caught:
        make(order, ())
    assert "\n" not in caught.value.message
    assert not order.recipe_file.exists()


def test_the_recipe_takes_over_all_but_the_weights(order: Order) -> None:
    order.recipe_file.write_text(recipe_text(order))
    made = load_recipe(order.recipe_file, load_yaml)
    assert made.spec.model_dir == order.out
    assert (made.spec.precision, made.spec.model) == ("int4", "headgate-large-fp16-int4")
    assert made.spec.options == order.like.spec.options
    assert made.price == order.like.price
    full = full_precision(order)
    assert (full.spec.model_dir, full.spec.precision) == (order.full.resolve(), "fp16")


def test_without_a_threshold_nothing_begins(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = prompts_file(tmp_path, SAID * 2)
    given = ["--like", "bundled-large", "--calibrate", str(file), "--out", str(tmp_path / "int4")]
    assert main(["models", "quantize", str(tmp_path), *given]) == 2
    assert "nothing says what the new model has to reach" in capsys.readouterr().err
    assert main(["models", "quantize", str(tmp_path), *given, "--least-accuracy", "0.9"]) == 2
    assert "--suite FILE with --least-accuracy" in capsys.readouterr().err
    assert os.listdir(tmp_path) == [file.name]


@pytest.mark.parametrize("engine", sorted(quantize.TOOLS))
def test_outside_its_environment_a_tool_says_one_line(
    engine: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "openvino_model.xml").write_text("<net/>")
    file = prompts_file(tmp_path, [[{"role": "user", "content": "a"}]])
    given = [str(source), "--for", engine, "--out", str(tmp_path / "out"), "--prompts", str(file)]
    assert quantize.main(given) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    assert "environment" in complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "prompts.jsonl"]
