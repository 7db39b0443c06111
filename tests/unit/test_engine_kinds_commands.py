"""Command lines of llama-server and of any other server: placeholders, prefixes of tenants, memory, containers."""

import os
import re
import stat
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.command import CommandLauncher
from backends.engines.container import container_name
from backends.engines.devices import memory_ratio, parse_gpus
from backends.engines.launcher import EngineSpec
from backends.engines.llama_server import LlamaServerLauncher
from backends.engines.recipes import load_recipe, recipe_names
from backends.engines.weights_store import resolve_weights
from core.errors import ConfigurationError
from policies.safe_yaml import load_yaml
from tests.unit.test_engine_model_files import gguf

GIB = 1 << 30
COMMAND_RECIPES = tuple(name for name in recipe_names() if load_recipe(name, load_yaml).engine == "command")


def program(folder: Path, name: str, script: str = "#!/bin/sh\n") -> str:
    file = folder / name
    file.write_text(script)
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def spec(folder: Path, **changes: Any) -> EngineSpec:
    fields: dict[str, Any] = {
        "name": "lab",
        "model": "lab-1",
        "model_dir": folder,
        "precision": "bf16",
        "memory_bytes": 20 * GIB,
        "context_tokens": 4096,
        "max_output_tokens": 512,
    }
    return EngineSpec(**(fields | changes))


def any_server(folder: Path, *, alone: bool = False, **changes: Any) -> CommandLauncher:
    options = {"command": [program(folder, "serve"), "--port={port}"]} | changes.pop("options", {})
    made = spec(folder, options=options, **changes)
    return CommandLauncher(made, lambda device: 80 * GIB, single_tenant=lambda: alone)


def test_placeholders_are_filled_in_and_no_shell_is_involved(tmp_path: Path) -> None:
    command = [program(tmp_path, "serve"), "{model}", "{weights}", "{port};rm", "{memory_ratio}", "{devices}"]
    launcher = any_server(tmp_path, options={"command": command}, devices=("cuda:2",), prefix_caching=False)
    assert launcher.command(81) == (command[0], "lab-1", str(tmp_path), "81;rm", "0.250", "2")


def test_a_variable_with_the_port_goes_through_env_and_the_others_do_not(tmp_path: Path) -> None:
    environment = {"OLLAMA_HOST": "127.0.0.1:{port}", "MODELS": "{weights}"}
    launcher = any_server(tmp_path, options={"environment": environment}, prefix_caching=False)
    assert launcher.command(81)[:2] == ("/usr/bin/env", "OLLAMA_HOST=127.0.0.1:81")
    assert launcher.environment()["MODELS"] == str(tmp_path)
    assert "OLLAMA_HOST" not in launcher.environment()


@pytest.mark.parametrize(
    ("changes", "alone", "switched_off"),
    [
        ({}, False, True),
        ({}, True, False),
        ({"share_prefix_cache": True}, False, False),
        ({"prefix_caching": False}, True, True),
    ],
)
def test_prefix_caching_is_switched_off_where_tenants_could_time_each_other(
    tmp_path: Path, changes: dict[str, Any], alone: bool, switched_off: bool
) -> None:
    launcher = any_server(tmp_path, alone=alone, options={"prefix_caching_off": ["--no-cache"]}, **changes)
    assert ("--no-cache" in launcher.command(1)) is switched_off


def test_a_server_that_honours_cache_salt_keeps_its_prefix_cache(tmp_path: Path) -> None:
    options = {"prefix_caching_off": ["--no-cache"], "isolates_prefixes": True}
    launcher = any_server(tmp_path, options=options)
    assert "--no-cache" not in launcher.command(1)
    assert launcher.capabilities().isolates_prefixes


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "prefix_caching: would let tenants time each other's prompts; give options.prefix_caching_off, or say"),
        ({"options": {"command": ["no-such-server", "{port}"]}}, "options.command: no-such-server is not there"),
        ({"options": {"command": ["sh", "{weight}"]}}, "options.command: {weight} is no placeholder; use one of"),
        ({"options": {"command": ["sh"]}}, "options.command: does not say the port; put {port} into the command"),
        ({"options": {"command": []}}, "options.command: is empty"),
        ({"options": {"comand": ["sh"]}}, "options: object contains unknown field `comand`; known options: command"),
    ],
)
def test_a_command_that_cannot_be_used_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        any_server(tmp_path, **changes).command(1)
    assert str(refusal.value).startswith(f"recipe lab: {words}")


@pytest.mark.parametrize("name", COMMAND_RECIPES)
def test_a_shipped_command_makes_a_command_line(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name, load_yaml)
    fields = {key: getattr(recipe.spec, key) for key in EngineSpec.__dataclass_fields__}
    command = [program(tmp_path, "server"), *recipe.spec.options["command"][1:]]  # type: ignore[index]
    made = EngineSpec(**(fields | {"model_dir": tmp_path, "options": {**recipe.spec.options, "command": command}}))
    line = " ".join(CommandLauncher(made, lambda device: 80 * GIB).command(8123))
    assert "8123" in line
    assert "{" not in line


def llama(folder: Path, *, alone: bool = False, **changes: Any) -> LlamaServerLauncher:
    gguf(folder / "m.gguf", 32)
    options = {"executable": program(folder, "llama-server")} | changes.pop("options", {})
    return LlamaServerLauncher(spec(folder, options=options, **changes), single_tenant=lambda: alone)


def test_llama_server_gets_a_context_for_each_slot_and_no_shared_prompts(tmp_path: Path) -> None:
    command = llama(tmp_path, options={"max_running": 3}).command(81)
    pairs = dict(pairwise(command))
    assert (pairs["--ctx-size"], pairs["--parallel"], pairs["--alias"]) == ("12288", "3", "lab-1")
    assert (pairs["--port"], pairs["--host"], pairs["--n-gpu-layers"]) == ("81", "127.0.0.1", "0")
    assert "--no-cache-prompt" in command
    assert "--no-cache-prompt" not in llama(tmp_path, alone=True).command(81)
    on_gpu = llama(tmp_path, devices=("cuda:1",))
    assert "999" in on_gpu.command(81)
    assert on_gpu.environment()["CUDA_VISIBLE_DEVICES"] == "1"


def test_llama_server_refuses_another_precision(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"precision: says int4, but .*m.gguf holds bf16 weights"):
        llama(tmp_path, precision="int4").command(1)


def test_a_draft_lies_beside_the_weights(tmp_path: Path) -> None:
    gguf(tmp_path / "draft.gguf", 15)
    file = str(tmp_path / "m.gguf")
    options = {"executable": program(tmp_path, "llama-server"), "draft_weights": "draft.gguf"}
    gguf(Path(file), 32)
    launcher = LlamaServerLauncher(spec(Path(file), options=options))
    pairs = dict(pairwise(launcher.command(1)))
    assert pairs["--model-draft"] == str(tmp_path / "draft.gguf")
    assert (pairs["--spec-type"], pairs["--spec-draft-n-max"]) == ("draft-simple", "8")


LAB = os.environ.get("HEADGATE_LAB_LLAMA_SERVER", "")


@pytest.mark.skipif(not LAB, reason="a laboratory test: set HEADGATE_LAB_LLAMA_SERVER to llama-server's program")
def test_every_flag_is_one_of_an_installed_llama_server(tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    gguf(tmp_path / "drafts" / "draft.gguf", 15)
    more = {"executable": LAB, "draft_weights": "drafts/draft.gguf", "kv_cache_type": "q8_0"}
    told = subprocess.run([LAB, "--help"], capture_output=True, text=True, check=True).stdout
    used = {part for part in llama(tmp_path, options=more).command(1) if part.startswith("--")}
    told_of = {flag: re.search(rf"^(?=-).*{flag}(?![\w-]).*(?:\n\s+.*)?", told, re.MULTILINE) for flag in used}
    assert [flag for flag, found in told_of.items() if found is None or "has been removed" in found[0]] == []


def test_gpus_are_read_from_the_drivers_own_tool() -> None:
    assert parse_gpus("0, 81559\n1, 143771\n") == {"cuda:0": 81559 << 20, "cuda:1": 143771 << 20}
    assert parse_gpus("No devices were found\n") == {}


def test_a_share_is_rounded_down(tmp_path: Path) -> None:
    assert str(memory_ratio(spec(tmp_path, memory_bytes=2 * GIB), lambda device: 3 * GIB)) == "0.666"


def test_weights_of_the_store_lie_in_a_folder_of_their_own(tmp_path: Path) -> None:
    store = os.environ.get("HEADGATE_MODELS")
    assert resolve_weights("models:x", tmp_path).name == "x"
    assert resolve_weights("models:x", tmp_path).parent.name == ("models" if store is None else Path(store).name)
    assert resolve_weights("../x", tmp_path / "recipes") == tmp_path / "x"
    assert resolve_weights("/abs/x", tmp_path) == Path("/abs/x")


def test_a_container_is_removed_before_and_stopped_after(tmp_path: Path) -> None:
    """The container runtime is a script here that notes how it is called; a `run` goes on until it is stopped."""
    notes = tmp_path / "notes"
    stop = tmp_path / "stop"
    script = f'#!/bin/sh\necho "$1 $2 $3" >> {notes}\n'
    script += f'[ "$1" = stop ] && touch {stop}\n[ "$1" = run ] && while [ ! -e {stop} ]; do sleep 0.05; done\nexit 0\n'
    runtime = program(tmp_path, "docker", script)
    own = (f"--runtime={runtime}", "--stop-s=5", f"--parent-pid={os.getpid()}")
    command = (sys.executable, "-m", "backends.engines.container", *own, "--", "--rm", "image")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(SOURCE_ROOT)}
    with subprocess.Popen(command, env=environment, cwd=tmp_path) as process:
        while not notes.exists() or "run" not in notes.read_text():
            assert process.poll() is None
        process.terminate()
        process.wait(30)
    name = container_name(str(tmp_path))
    assert notes.read_text().splitlines() == [
        f"rm --force {name}",
        f"run --name={name} --rm",
        "stop -t 5",
        f"rm --force {name}",
    ]
