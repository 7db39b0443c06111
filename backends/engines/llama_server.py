"""Launches llama.cpp's `llama-server` where its program is there: GGUF weights, quantised or whole, on CPU or GPU.

Flags are those of llama.cpp at commit 0c1e570, which llama-cpp-python 0.3.36 carries; earlier versions name those of
drafts otherwise.
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from backends.engines.bare_environment import QUIET, inherited_environment, visible_devices
from backends.engines.launcher import Capabilities, EngineSpec, SingleTenant, caches_prefixes, nobody_alone
from backends.engines.model_files import check_precision, gguf_file, gguf_precision
from backends.engines.options import parse_options
from backends.engines.weights_store import resolve_weights
from core.errors import ConfigurationError

ALL_LAYERS = 999
Count = Annotated[int, Meta(ge=1)]


class _Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe for this engine.

    Attributes:
        max_running: slots; each has a context of its own, so the KV cache holds `max_running` contexts.
        draft_weights: a small GGUF file of the same vocabulary that guesses ahead.
    """

    executable: str = "llama-server"
    threads: Count = 1
    max_running: Count = 4
    batch_tokens: Count = 512
    kv_cache_type: str | None = None
    draft_weights: str | None = None
    guessed_tokens: Count = 8
    arguments: list[str] = []


class LlamaServerLauncher:
    """Runs `llama-server` for one recipe; a SIGTERM ends its running requests, so the supervisor drains it first."""

    def __init__(self, spec: EngineSpec, *, single_tenant: SingleTenant = nobody_alone) -> None:
        """Check the options; raises ConfigurationError when one is unknown or of the wrong kind."""
        self._spec = spec
        self._single_tenant = single_tenant
        self._options = parse_options(spec, _Options)

    @property
    def spec(self) -> EngineSpec:
        """Return what the recipe says."""
        return self._spec

    def command(self, port: int) -> tuple[str, ...]:
        """Return the argument vector.

        Raises:
            ConfigurationError: the program is not there, or the weights are missing or of another precision.
        """
        options, spec = self._options, self._spec
        program = shutil.which(os.path.expanduser(options.executable))
        if program is None:
            problem, mend = f"{options.executable} is not there", "install llama.cpp, or name its program"
            raise ConfigurationError(f"recipe {spec.name}", "options.executable", problem, mend)
        weights = gguf_file(spec.model_dir, spec.name)
        check_precision(spec.precision, gguf_precision(weights, spec.name), weights, spec.name)
        return (program, *self._arguments(port, weights), *options.arguments)

    def environment(self) -> dict[str, str]:
        """Return an environment without secrets, in which only the recipe's devices are seen."""
        return inherited_environment() | QUIET | visible_devices(self._spec)

    def capabilities(self) -> Capabilities:
        """Return what llama-server can do."""
        return Capabilities(
            health_path="/health", isolates_prefixes=False, cancels_on_disconnect=True, drains_on_sigterm=False
        )

    def _arguments(self, port: int, weights: Path) -> Iterator[str]:
        options, spec = self._options, self._spec
        yield from ("--model", str(weights), "--alias", spec.model, "--host", "127.0.0.1", "--port", str(port))
        yield from (
            "--ctx-size",
            str(spec.context_tokens * options.max_running),
            "--parallel",
            str(options.max_running),
        )
        yield from ("--n-predict", str(spec.max_output_tokens), "--batch-size", str(options.batch_tokens))
        yield from ("--threads", str(options.threads), "--metrics", "--no-webui", "--jinja")
        yield from ("--n-gpu-layers", "0" if spec.devices == ("cpu",) else str(ALL_LAYERS))
        if options.kv_cache_type is not None:
            yield from ("--cache-type-k", options.kv_cache_type, "--cache-type-v", options.kv_cache_type)
        if options.draft_weights is not None:
            draft = gguf_file(resolve_weights(options.draft_weights, weights.parent), spec.name)
            yield from ("--model-draft", str(draft), "--spec-type", "draft-simple")
            yield from ("--spec-draft-n-max", str(options.guessed_tokens))
        if not caches_prefixes(spec, single_tenant=self._single_tenant()):
            yield from ("--no-cache-prompt", "--cache-ram", "0")
