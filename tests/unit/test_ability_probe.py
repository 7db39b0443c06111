"""The conformance probe: what passes, what does not, and what its file is worth at the next start."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.ability_probe import AbilityProbe, Found, ProbeFailed
from backends.declared_abilities import DeclaredAbilities
from backends.engines.recipes import Recipe, load_recipe
from backends.probe_questions import SCRIPT_QUESTIONS
from core.errors import ConfigurationError
from core.plan import TEXT_ALONE, Abilities
from gateway.hosting.probed_abilities import abilities_of, probed_abilities, probed_file, probed_of, write_probed
from gateway.settings.operator import load_settings
from gateway.whatif.policy_report import catalogue
from policies.safe_yaml import load_yaml

Json = dict[str, Any]
CALLS: dict[str, tuple[str, Json]] = {
    "Paris": ("get_weather", {"city": "Paris, France"}),
    "Berlin": ("get_weather", {"city": "Berlin"}),
    "Madrid": ("get_weather", {"city": "Madrid"}),
    "348": ("add_numbers", {"a": 348, "b": 271}),
    "17": ("add_numbers", {"a": 17, "b": 25}),
}
OBJECTS = {
    "Anna": {"name": "Anna", "age": 31, "city": "Oslo"},
    "Bernd": {"name": "Bernd", "age": 45, "city": "Wien"},
    "Lucia": {"name": "Lucia", "age": 28, "city": "Toledo"},
    "Paul": {"name": "Paul", "age": 52, "city": "Lyon"},
    '"ok"': {"ok": True},
    '"a"': {"a": 1, "b": 2},
}
SAID = {prompt: accepted[0] for questions in SCRIPT_QUESTIONS.values() for prompt, accepted in questions}
WINDOW = 4_000
RECIPE = """\
engine: openvino
weights: weights
precision: int8
model: tiny
memory_bytes: 1000
context_tokens: 4000
max_output_tokens: 50
price: {input_usd_per_m: "1", output_usd_per_m: "2"}
"""
EVERYTHING = Found(True, True, ("latin", "greek"), 3_000, 43, ())


def able(body: Json) -> Json:
    """Answer as a model would that can do everything."""
    prompt = body["messages"][0]["content"]
    if "tools" in body:
        call = next((call for key, call in CALLS.items() if key in prompt), None)
        return {"content": "Hello!"} if call is None else tool_call(*call)
    if "response_format" in body:
        return {"content": json.dumps(next(value for key, value in OBJECTS.items() if key in prompt))}
    if prompt in SAID:
        return {"content": SAID[prompt]}
    return recalled(prompt)


def recalled(prompt: str) -> Json:
    box = re.search(r"Which code does box (\d+) hold", prompt)
    assert box is not None
    return {"content": re.findall(rf"Box {box[1]} holds the code (\d+)", prompt)[0]}


def tool_call(name: str, arguments: Json) -> Json:
    function = {"name": name, "arguments": json.dumps(arguments)}
    return {"content": None, "tool_calls": [{"id": "call_1", "type": "function", "function": function}]}


async def probed(answer: Callable[[Json], Json | int]) -> Found:
    """Probe a scripted model; a number is the status that it answers."""

    def handle(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        message = answer(body)
        if isinstance(message, int):
            return httpx.Response(message, json={"error": {}})
        usage = {"prompt_tokens": len(body["messages"][0]["content"].split())}
        return httpx.Response(200, json={"choices": [{"message": {"role": "assistant", **message}}], "usage": usage})

    async with httpx.AsyncClient(base_url="http://engine/v1", transport=httpx.MockTransport(handle)) as client:
        return await AbilityProbe(client, "tiny", WINDOW).run()


async def test_a_model_that_answers_everything_rightly_passes_up_to_its_window() -> None:
    found = await probed(able)
    assert (found.tools, found.json, found.missed) == (True, True, ())
    assert found.scripts == tuple(SCRIPT_QUESTIONS)
    assert found.context_tokens is not None
    assert 0.9 * WINDOW < found.context_tokens < WINDOW


async def test_a_model_that_only_talks_passes_nothing() -> None:
    found = await probed(lambda _: {"content": "Hello! How can I help you?"})
    assert (found.tools, found.json, found.scripts, found.context_tokens) == (False, False, (), None)


@pytest.mark.parametrize(
    "message",
    [
        {"content": "I would call get_weather."},
        tool_call("get_weather", {"city": "Lisbon"}),
        tool_call("get_weather", {"city": "Paris", "unit": "kelvin"}),
        tool_call("add_numbers", {"city": "Paris"}),
        400,
    ],
)
async def test_one_missed_tool_call_fails_tools_alone(message: Json | int) -> None:
    found = await probed(lambda body: message if "Paris" in str(body["messages"]) and "tools" in body else able(body))
    assert (found.tools, found.json, found.scripts) == (False, True, tuple(SCRIPT_QUESTIONS))
    assert [missed.ability for missed in found.missed] == ["tools"]


async def test_calling_a_tool_where_none_is_needed_fails_tools() -> None:
    found = await probed(lambda body: tool_call("get_weather", {"city": "Paris"}) if "tools" in body else able(body))
    assert not found.tools


async def test_json_with_a_wrong_value_or_a_word_around_it_fails() -> None:
    wrong = {"content": '{"name": "Anna", "age": "31", "city": "Oslo"}'}
    assert not (await probed(lambda body: wrong if "Anna" in str(body["messages"]) else able(body))).json
    chatty = await probed(lambda body: {"content": "Sure: {}"} if "response_format" in body else able(body))
    assert not chatty.json


async def test_a_list_of_digits_is_no_answer_in_any_script() -> None:
    found = await probed(lambda body: {"content": "5 6 7"} if body["messages"][0]["content"] in SAID else able(body))
    assert found.scripts == ()


async def test_the_range_ends_where_facts_are_lost_though_the_window_goes_on() -> None:
    def forgetful(body: Json) -> Json:
        is_long = len(body["messages"][0]["content"].split()) > WINDOW // 3
        return {"content": "no idea"} if is_long else able(body)

    found = await probed(forgetful)
    assert found.context_tokens is not None
    assert WINDOW // 8 < found.context_tokens <= WINDOW // 3


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_an_engine_that_fails_ends_the_probe_instead_of_failing_the_model(status: int) -> None:
    with pytest.raises(ProbeFailed, match=str(status)):
        await probed(lambda _: status)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "model.bin").write_bytes(b"weights")
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    return load_recipe(tmp_path / "tiny.yaml", load_yaml)


def keep(recipe: Recipe, state_dir: Path, found: Found = EVERYTHING) -> Path:
    path = probed_file(state_dir, recipe.name)
    write_probed(path, probed_of(recipe, found, datetime(2026, 8, 1, tzinfo=UTC)))
    return path


def test_without_a_probe_the_guards_hold(recipe: Recipe, tmp_path: Path) -> None:
    assert abilities_of(DeclaredAbilities(), recipe, tmp_path) == TEXT_ALONE


def test_what_was_probed_counts_and_what_is_declared_wins(recipe: Recipe, tmp_path: Path) -> None:
    keep(recipe, tmp_path)
    assert abilities_of(DeclaredAbilities(), recipe, tmp_path) == Abilities(
        tools=True, json=True, scripts=("latin", "greek"), measured_context_tokens=3_000
    )
    of_recipe = replace(recipe, abilities=DeclaredAbilities(tools=False, measured_context_tokens=500))
    declared = abilities_of(DeclaredAbilities(measured_context_tokens=800, media=True), of_recipe, tmp_path)
    assert (declared.tools, declared.json, declared.media, declared.measured_context_tokens) == (False, True, True, 800)


def test_a_model_that_misses_latin_keeps_it_since_its_tier_would_be_empty(recipe: Recipe, tmp_path: Path) -> None:
    keep(recipe, tmp_path, Found(False, False, (), None, 43, ()))
    assert abilities_of(DeclaredAbilities(), recipe, tmp_path) == TEXT_ALONE


def test_other_weights_are_not_vouched_for(recipe: Recipe, tmp_path: Path) -> None:
    keep(recipe, tmp_path)
    (tmp_path / "weights" / "model.bin").write_bytes(b"retrain")
    assert probed_abilities(recipe, tmp_path) is None
    assert abilities_of(DeclaredAbilities(), recipe, tmp_path) == TEXT_ALONE


def test_a_broken_file_is_one_line_with_the_mend(recipe: Recipe, tmp_path: Path) -> None:
    keep(recipe, tmp_path).write_text('{"tools": true}')
    with pytest.raises(ConfigurationError, match=r"models check tiny --probe` again"):
        abilities_of(DeclaredAbilities(), recipe, tmp_path)


def test_a_recipe_declares_abilities_and_refuses_unknown_ones(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE + "abilities: {tools: true, scripts: [latin, han]}\n")
    assert load_recipe(file, load_yaml).abilities == DeclaredAbilities(tools=True, scripts=("latin", "han"))
    file.write_text(RECIPE + "abilities: {telepathy: true}\n")
    with pytest.raises(ConfigurationError, match="telepathy"):
        load_recipe(file, load_yaml)


def test_the_planner_sees_what_was_probed(recipe: Recipe, tmp_path: Path) -> None:
    config = tmp_path / "headgate.yaml"
    config.write_text(
        f"state: sqlite:state/h.db\ntiers: {{small: [s]}}\ndeployments: {{s: {{recipe: '{recipe.file}'}}}}\n"
    )
    settings = load_settings(config)
    assert not catalogue(settings).deployments["s"].abilities.tools
    keep(recipe, settings.state_file.parent)
    assert catalogue(settings).deployments["s"].abilities.tools
