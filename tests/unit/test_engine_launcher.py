"""The OpenVINO launcher: its command line, its bare environment, and what it refuses before starting anything."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from backends.engines.launcher import EngineSpec
from backends.engines.openvino import NEEDED_FILES, OpenVinoLauncher, stored_precision
from core.errors import ConfigurationError

INT4 = '<data element_type="u4" shape="64, 64" offset="0" size="2048"/>'
INT8 = '<data element_type="u8" shape="64, 16" offset="2048" size="1024"/>'
FP16 = '<data element_type="f16" shape="64" offset="3072" size="128"/>'
INDEX = '<data element_type="i64" shape="9999" offset="4000" size="79992"/>'


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    for name in NEEDED_FILES:
        (tmp_path / name).write_text("{}")
    (tmp_path / "openvino_model.xml").write_text(INT4 + INT8 + FP16 + INDEX)
    return tmp_path


def launcher(model_dir: Path, *, single_tenant: bool = False, **changes: Any) -> OpenVinoLauncher:
    fields: dict[str, Any] = {
        "name": "tiny",
        "model": "tiny-1",
        "model_dir": model_dir,
        "precision": "int4",
        "memory_bytes": 1,
        "context_tokens": 100,
        "max_output_tokens": 10,
    }
    return OpenVinoLauncher(EngineSpec(**(fields | changes)), single_tenant=lambda: single_tenant)


def test_the_command_runs_the_worker_in_this_interpreter(model_dir: Path) -> None:
    command = launcher(model_dir, options={"threads": 2, "cache_tokens": 200}).command(1234)
    assert command[:3] == (sys.executable, "-m", "backends.engines.openvino_server")
    assert {"--port=1234", "--name=tiny-1", "--threads=2", "--cache-tokens=200"} <= set(command)
    assert f"--parent-pid={os.getpid()}" in command
    assert not any("None" in part for part in command)


@pytest.mark.parametrize(
    ("changes", "single_tenant", "cached"),
    [
        ({}, False, False),
        ({}, True, True),
        ({"share_prefix_cache": True}, False, True),
        ({"prefix_caching": False}, True, False),
    ],
)
def test_prefixes_are_cached_for_one_tenant_or_where_the_operator_allows_sharing(
    model_dir: Path, changes: dict[str, Any], single_tenant: bool, cached: bool
) -> None:
    command = launcher(model_dir, single_tenant=single_tenant, **changes).command(1)
    assert ("--prefix-caching" in command) is cached


def test_the_environment_is_bare_and_offline(model_dir: Path) -> None:
    environment = launcher(model_dir).environment()
    allowed = {"PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ"}
    set_by_us = {"PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED", "PYTHONPATH"}
    set_by_us |= {"HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"}  # this process may have the same values
    assert environment["PYTHONSAFEPATH"] == environment["HF_HUB_OFFLINE"] == "1"
    inherited = {name for name in environment if environment[name] == os.environ.get(name)}
    assert inherited <= allowed | set_by_us
    assert not any("KEY" in name or "TOKEN" in name for name in environment)


def test_a_missing_folder_is_one_line_with_recipe_and_mend(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    with pytest.raises(ConfigurationError) as refusal:
        launcher(gone).command(1)
    assert str(refusal.value) == (
        f"recipe tiny: weights: the folder {gone} does not exist; "
        "correct the path, or make it with `headgate models convert`"
    )


@pytest.mark.parametrize("name", NEEDED_FILES)
def test_a_missing_file_is_named(model_dir: Path, name: str) -> None:
    (model_dir / name).unlink()
    with pytest.raises(ConfigurationError, match=f"weights: .* has no {name}"):
        launcher(model_dir).command(1)


def test_weights_of_another_precision_are_refused(model_dir: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"tiny: precision: says fp16, but .* holds int4 weights; write"):
        launcher(model_dir, precision="fp16").command(1)


@pytest.mark.parametrize(
    ("constants", "precision"), [(INT4 + INT8, "int4"), (INT8 + FP16, "int8"), (FP16 + INDEX, "fp16"), (INDEX, "fp32")]
)
def test_the_precision_is_that_of_most_weights(tmp_path: Path, constants: str, precision: str) -> None:
    file = tmp_path / "model.xml"
    file.write_text(constants)
    assert stored_precision(file) == precision


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"thread": 2}, "options: object contains unknown field `thread`; known options: threads"),
        ({"threads": "many"}, "options.threads: expected `int`, got `str`"),
        ({"kv_cache_precision": "u2"}, "options.kv_cache_precision: invalid enum value 'u2'"),
        ({"cache_tokens": 99}, "options.cache_tokens: 99 tokens cannot hold one context of 100; raise it"),
    ],
)
def test_a_wrong_option_is_refused_at_once(model_dir: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        launcher(model_dir, options=options)
    assert str(refusal.value).startswith(f"recipe tiny: {words}")
