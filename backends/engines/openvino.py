"""Launches the OpenVINO worker: checks the weights, then builds its command line and its bare environment."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from backends.engines.launcher import Capabilities, EngineSpec, Precision, SingleTenant, nobody_alone
from backends.engines.options import parse_options, refuse_small_cache
from backends.engines.weights_store import resolve_weights
from backends.engines.worker_launcher import (
    WORKER,
    caches_prefixes,
    first_request,
    worker_command,
    worker_environment,
)
from core.errors import ConfigurationError

NEEDED_FILES = ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "config.json")
WEIGHTS = re.compile(rb'element_type="(\w+)" shape="[^"]*" offset="\d+" size="(\d+)"')
BITS = {"u4": 4, "i4": 4, "nf4": 4, "u8": 8, "i8": 8, "f16": 16, "bf16": 16, "f32": 32}
STORED_AS: dict[str, Precision] = {
    "u4": "int4",
    "i4": "int4",
    "nf4": "int4",
    "u8": "int8",
    "i8": "int8",
    "f16": "fp16",
    "bf16": "bf16",
    "f32": "fp32",
}


class _Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe for this engine; see `openvino_server --help`."""

    threads: int = 1
    max_running: int = 64
    max_queued: int = 256
    batch_tokens: int = 512
    cache_tokens: int | None = None
    default_temperature: float = 1.0
    inference_precision: Literal["f32", "f16", "bf16"] | None = None
    kv_cache_precision: Literal["u8", "f16", "bf16", "f32"] | None = None
    draft_weights: str | None = None
    prompt_lookup: Annotated[int, msgspec.Meta(ge=1, le=32)] | None = None
    guessed_tokens: Annotated[int, msgspec.Meta(ge=1, le=32)] = 4


class OpenVinoLauncher:
    """Runs `backends.engines.openvino_server` for one recipe."""

    def __init__(self, spec: EngineSpec, *, single_tenant: SingleTenant = nobody_alone) -> None:
        """Check the options.

        Args:
            spec: the recipe.
            single_tenant: tells whether one tenant alone uses the engine, so that prefixes may be cached.

        Raises:
            ConfigurationError: an option is unknown or of the wrong kind.
        """
        self._spec = spec
        self._single_tenant = single_tenant
        self._options = parse_options(spec, _Options)
        refuse_small_cache(spec, self._options.cache_tokens)
        if self._options.draft_weights is not None and self._options.prompt_lookup is not None:
            mend = "keep one of them"
            raise ConfigurationError(
                f"recipe {spec.name}", "options.prompt_lookup", "cannot be combined with draft_weights", mend
            )

    @property
    def spec(self) -> EngineSpec:
        """Return what the recipe says."""
        return self._spec

    def command(self, port: int) -> tuple[str, ...]:
        """Return the worker's argument vector.

        Raises:
            ConfigurationError: OpenVINO is not installed, or the weights are missing or of another precision.
        """
        self._check()
        options = self._options
        arguments: dict[str, object] = {
            "threads": options.threads,
            "max-running": options.max_running,
            "max-queued": options.max_queued,
            "batch-tokens": options.batch_tokens,
            "cache-tokens": options.cache_tokens,
            "default-temperature": options.default_temperature,
            "inference-precision": options.inference_precision,
            "kv-cache-precision": options.kv_cache_precision,
            "draft-model-dir": self._draft_dir(),
            "prompt-lookup": options.prompt_lookup,
            "guessed-tokens": options.guessed_tokens,
        }
        caching = caches_prefixes(self._spec, single_tenant=self._single_tenant())
        flags = ("--prefix-caching",) if caching else ()
        return worker_command("backends.engines.openvino_server", self._spec, port, arguments, flags)

    def environment(self) -> dict[str, str]:
        """Return an environment without secrets, in which nothing is looked up on the network."""
        return worker_environment()

    def warm_up_body(self) -> bytes:
        """Return a chat request for one token."""
        return first_request(self._spec.model)

    def capabilities(self) -> Capabilities:
        """Return what the worker can do."""
        return WORKER

    def _draft_dir(self) -> Path | None:
        """Return the folder of the draft model; a relative one starts beside the weights."""
        if self._options.draft_weights is None:
            return None
        folder = resolve_weights(self._options.draft_weights, self._spec.model_dir)
        _refuse_missing(folder, f"recipe {self._spec.name}", "options.draft_weights")
        return folder

    def _check(self) -> None:
        name, model_dir = f"recipe {self._spec.name}", self._spec.model_dir
        if importlib.util.find_spec("openvino_genai") is None:
            raise ConfigurationError(name, "engine", "OpenVINO GenAI is not installed", "install headgate[engine]")
        _refuse_missing(model_dir, name, "weights")
        found = stored_precision(model_dir / "openvino_model.xml")
        if found != self._spec.precision:
            raise ConfigurationError(
                name,
                "precision",
                f"says {self._spec.precision}, but {model_dir} holds {found} weights",
                f"write `precision: {found}`, or convert the model again",
            )


def _refuse_missing(model_dir: Path, recipe: str, key: str) -> None:
    missing = next((file for file in NEEDED_FILES if not (model_dir / file).is_file()), None)
    if missing is not None:
        what = f"{model_dir} has no {missing}" if model_dir.is_dir() else f"the folder {model_dir} does not exist"
        raise ConfigurationError(recipe, key, what, "correct the path, or make it with `headgate models convert`")


def stored_precision(model_xml: Path) -> Precision:
    """Return the type of most weights of an OpenVINO IR, by number of elements."""
    elements: Counter[Precision] = Counter()
    for kind, size in WEIGHTS.findall(model_xml.read_bytes()):
        name = kind.decode()
        if name in BITS:
            elements[STORED_AS[name]] += int(size) * 8 // BITS[name]
    return elements.most_common(1)[0][0] if elements else "fp32"
