"""vLLM's command line from a recipe: documented flags only, consistent memory, and what is refused before a start."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from backends.engines.launcher import EngineSpec
from backends.engines.recipes import load_recipe, recipe_names
from backends.engines.vllm import VllmLauncher
from core.errors import ConfigurationError
from policies.safe_yaml import load_yaml
from tests.weights_files import QUANTISED, write_weights

GIB = 1 << 30
FLAGS = Path(__file__).with_name("vllm_flags.txt")
"""The options of `vllm serve` 0.32.0, read from its `engine/arg_utils.py` and `entrypoints/launchers/cli_args.py`."""
GOLDEN = Path(__file__).with_name("vllm_commands.json")
VLLM_RECIPES = tuple(name for name in recipe_names() if load_recipe(name, load_yaml).engine == "vllm")


def program(folder: Path) -> str:
    file = folder / "vllm"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    return str(file)


def launcher(tmp_path: Path, config: dict[str, Any] | None = None, **changes: Any) -> VllmLauncher:
    options = {"executable": program(tmp_path)} | changes.pop("options", {})
    fields: dict[str, Any] = {
        "name": "lab",
        "model": "lab-1",
        "model_dir": write_weights(tmp_path / "weights", config or {}),
        "precision": "bf16",
        "memory_bytes": 40 * GIB,
        "context_tokens": 4096,
        "max_output_tokens": 512,
        "devices": ("cuda:0",),
        "options": options,
    }
    return VllmLauncher(EngineSpec(**(fields | changes)), lambda device: 80 * GIB)


def shipped(name: str, tmp_path: Path) -> tuple[str, ...]:
    """Return the shipped recipe's command line over weights that look as its repository's do, without paths."""
    recipe = load_recipe(name, load_yaml)
    config = next((config for word, config in QUANTISED.items() if word in name), {})
    options = dict(recipe.spec.options) | {"executable": program(tmp_path)}
    weights = write_weights(tmp_path / "weights", config)
    fields = {key: getattr(recipe.spec, key) for key in EngineSpec.__dataclass_fields__}
    spec = EngineSpec(**(fields | {"model_dir": weights, "options": options}))
    command = VllmLauncher(spec, lambda device: 80 * GIB).command(8000)
    return tuple(part.replace(str(tmp_path), "") for part in command)


@pytest.mark.parametrize("name", VLLM_RECIPES)
def test_a_shipped_recipe_uses_documented_flags_only(name: str, tmp_path: Path) -> None:
    known = set(FLAGS.read_text().split())
    flags = {part.partition("=")[0] for part in shipped(name, tmp_path) if part.startswith("--")}
    assert flags
    assert {flag.replace("--no-enable-", "--enable-") for flag in flags} <= known


@pytest.mark.parametrize("name", VLLM_RECIPES)
def test_a_shipped_recipe_makes_the_golden_command_line(name: str, tmp_path: Path) -> None:
    assert list(shipped(name, tmp_path)) == json.loads(GOLDEN.read_text())[name]


def test_two_engines_on_one_gpu_get_fractions_that_add_up(tmp_path: Path) -> None:
    small = launcher(tmp_path, memory_bytes=20 * GIB).command(1)
    large = launcher(tmp_path, memory_bytes=55 * GIB).command(1)
    assert "--gpu-memory-utilization=0.250" in small
    assert "--gpu-memory-utilization=0.687" in large


def test_memory_is_a_share_of_each_of_several_gpus(tmp_path: Path) -> None:
    command = launcher(tmp_path, devices=("cuda:1", "cuda:3"), options={"tensor_parallel": 2}).command(1)
    assert {"--gpu-memory-utilization=0.250", "--tensor-parallel-size=2"} <= set(command)


def test_the_environment_shows_the_recipes_gpus_only_and_silences_telemetry(tmp_path: Path) -> None:
    options = {"tensor_parallel": 2, "sleep_mode": True}
    environment = launcher(tmp_path, devices=("cuda:1", "cuda:3"), options=options).environment()
    assert environment["CUDA_VISIBLE_DEVICES"] == "1,3"
    assert environment["VLLM_NO_USAGE_STATS"] == environment["DO_NOT_TRACK"] == environment["HF_HUB_OFFLINE"] == "1"
    assert environment["VLLM_SERVER_DEV_MODE"] == "1"
    assert "VLLM_SERVER_DEV_MODE" not in launcher(tmp_path).environment()


def test_sleeping_is_offered_with_sleep_mode_alone(tmp_path: Path) -> None:
    assert launcher(tmp_path).capabilities().sleep_path is None
    can = launcher(tmp_path, options={"sleep_mode": True})
    assert (can.capabilities().sleep_path, can.capabilities().wake_path) == ("/sleep?level=1", "/wake_up")
    assert "--enable-sleep-mode" in can.command(1)


def test_prefixes_are_cached_since_tenants_are_salted_unless_the_recipe_says_no(tmp_path: Path) -> None:
    assert "--enable-prefix-caching" in launcher(tmp_path).command(1)
    assert "--no-enable-prefix-caching" in launcher(tmp_path, prefix_caching=False).command(1)
    assert launcher(tmp_path).capabilities().isolates_prefixes


def test_several_machines_without_ray_are_told_of_each_other(tmp_path: Path) -> None:
    options = {"nodes": 2, "node_rank": 1, "master_addr": "10.0.0.1", "master_port": 29500, "pipeline_parallel": 2}
    command = launcher(tmp_path, options=options).command(1)
    assert {"--nnodes=2", "--node-rank=1", "--master-addr=10.0.0.1", "--master-port=29500"} <= set(command)


def test_a_container_gets_its_weights_read_only_and_its_port_on_loopback(tmp_path: Path) -> None:
    command = launcher(tmp_path, options={"container": "vllm/vllm-openai:v0.32.0"}).command(8123)
    assert "--publish=127.0.0.1:8123:8123" in command
    assert f"--volume={tmp_path}/weights:/weights:ro" in command
    assert '--gpus="device=0"' in command
    assert "--env=VLLM_NO_USAGE_STATS=1" in command
    image = command.index("vllm/vllm-openai:v0.32.0")
    assert command[image + 1 : image + 3] == ("/weights", "--host=0.0.0.0")
    assert not any(part.startswith("--env=PATH") for part in command)
    environment = launcher(tmp_path, options={"container": "vllm/vllm-openai:v0.32.0"}).environment()
    assert "PYTHONPATH" in environment, "the process that holds the container is a module of ours"
    assert "VLLM_NO_USAGE_STATS" not in environment


@pytest.mark.parametrize(
    ("config", "changes", "words"),
    [
        (QUANTISED["awq"], {}, r"precision: says bf16, but .* holds int4 weights; write `precision: int4`"),
        ({}, {"precision": "int4"}, r"precision: says int4, but .* holds bf16 weights"),
        ({}, {"precision": "fp8"}, r"precision: says fp8, but .* holds bf16 weights"),
        ({}, {"memory_bytes": 81 * GIB}, "memory_bytes: is more than 1 x 85899345920 bytes; lower it"),
        ({}, {"options": {"executable": "no-such-vllm"}}, "options.executable: no-such-vllm is not there; install"),
    ],
)
def test_what_cannot_start_is_refused_with_recipe_and_mend(
    tmp_path: Path, config: dict[str, Any], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^recipe lab: {words}"):
        launcher(tmp_path, config, **changes).command(1)


def test_fp8_may_be_made_from_whole_weights_while_loading(tmp_path: Path) -> None:
    command = launcher(tmp_path, precision="fp8", options={"quantization": "fp8"}).command(1)
    assert "--quantization=fp8" in command


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"options": {"tensor_parallel": 2}}, "devices: names 1, but the parallel sizes need 2"),
        ({"options": {"nodes": 2, "pipeline_parallel": 2}}, "options.master_addr: is needed with several nodes"),
        ({"options": {"quantization": "int3"}}, "options.quantization: invalid enum value 'int3'"),
        ({"options": {"max_runing": 3}}, "options: object contains unknown field `max_runing`; known options: exec"),
        ({"options": {"max_running": 0}}, "options.max_running: expected `int` >= 1"),
    ],
)
def test_a_wrong_option_is_refused_at_once(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        launcher(tmp_path, **changes)
    assert str(refusal.value).startswith(f"recipe lab: {words}")


def test_the_recipes_options_are_those_of_an_installed_vllm(tmp_path: Path) -> None:
    vllm = os.environ.get("HEADGATE_LAB_VLLM")
    if not vllm:
        pytest.skip("a laboratory test: set HEADGATE_LAB_VLLM to vLLM's program")
    shown = subprocess.run(
        [vllm, "serve", "--help=all"], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    for name in VLLM_RECIPES:
        flags = {part.partition("=")[0] for part in shipped(name, tmp_path) if part.startswith("--")}
        assert {flag for flag in flags if flag not in shown} == set(), name
