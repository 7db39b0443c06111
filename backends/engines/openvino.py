"""Launches the OpenVINO worker: checks the weights, then builds its command line and its bare environment."""

import importlib.util
import os
import re
import sys
from collections import Counter
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import msgspec

from backends.engines.launcher import Capabilities, EngineSpec, Precision
from core.errors import ConfigurationError

SOURCE_ROOT = Path(__file__).resolve().parents[2]
NEEDED_FILES = ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "config.json")
INHERITED = ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")
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


class OpenVinoLauncher:
    """Runs `backends.engines.openvino_server` for one recipe."""

    def __init__(self, spec: EngineSpec, *, single_tenant: bool = False) -> None:
        """Check the options.

        Args:
            spec: the recipe.
            single_tenant: whether one tenant alone uses the engine, so that prefixes may be cached.

        Raises:
            ConfigurationError: an option is unknown or of the wrong kind.
        """
        self._spec = spec
        self._single_tenant = single_tenant
        try:
            self._options = msgspec.convert(dict(spec.options), _Options)
        except msgspec.ValidationError as problem:
            what, _, where = str(problem).partition(" - at `$.")
            key = f"options.{where.rstrip('`')}" if where else "options"
            known = ", ".join(_Options.__struct_fields__)
            raise ConfigurationError(f"recipe {spec.name}", key, what.lower(), f"known options: {known}") from problem
        cache_tokens = self._options.cache_tokens
        if cache_tokens is not None and cache_tokens < spec.context_tokens:
            raise ConfigurationError(
                f"recipe {spec.name}",
                "options.cache_tokens",
                f"{cache_tokens} tokens cannot hold one context of {spec.context_tokens}",
                "raise it, or lower context_tokens",
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
        spec, options = self._spec, self._options
        arguments: dict[str, object] = {
            "model-dir": spec.model_dir,
            "name": spec.model,
            "port": port,
            "parent-pid": os.getpid(),
            "threads": options.threads,
            "context-tokens": spec.context_tokens,
            "max-output-tokens": spec.max_output_tokens,
            "max-running": options.max_running,
            "max-queued": options.max_queued,
            "batch-tokens": options.batch_tokens,
            "cache-tokens": options.cache_tokens,
            "default-temperature": options.default_temperature,
            "inference-precision": options.inference_precision,
            "kv-cache-precision": options.kv_cache_precision,
            "drain-timeout": spec.drain_timeout_s,
        }
        pairs = tuple(f"--{name}={value}" for name, value in arguments.items() if value is not None)
        caching = spec.prefix_caching and (spec.share_prefix_cache or self._single_tenant)
        flags = ("--prefix-caching",) if caching else ()
        return (sys.executable, "-m", "backends.engines.openvino_server", *pairs, *flags)

    def environment(self) -> dict[str, str]:
        """Return an environment without secrets, in which nothing is looked up on the network."""
        kept = {
            name: os.environ[name]
            for name in ("PATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TMPDIR", "TZ")
            if name in os.environ
        }
        return kept | {
            "PYTHONSAFEPATH": "1",
            "PYTHONPATH": str(SOURCE_ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONUNBUFFERED": "1",
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "DO_NOT_TRACK": "1",
        }

    def warm_up_body(self) -> bytes:
        """Return a chat request for one token."""
        message = {"role": "user", "content": "Hello"}
        return msgspec.json.encode({"model": self._spec.model, "messages": [message], "max_tokens": 1})

    def capabilities(self) -> Capabilities:
        """Return what the worker can do."""
        return Capabilities(
            health_path="/health", isolates_prefixes=False, cancels_on_disconnect=True, drains_on_sigterm=True
        )

    def _check(self) -> None:
        name, model_dir = f"recipe {self._spec.name}", self._spec.model_dir
        if importlib.util.find_spec("openvino_genai") is None:
            raise ConfigurationError(name, "engine", "OpenVINO GenAI is not installed", "install headgate[engine]")
        missing = next((file for file in NEEDED_FILES if not (model_dir / file).is_file()), None)
        if missing is not None:
            what = f"{model_dir} has no {missing}" if model_dir.is_dir() else f"the folder {model_dir} does not exist"
            raise ConfigurationError(
                name, "weights", what, "correct the path, or make it with `headgate models convert`"
            )
        found = stored_precision(model_dir / "openvino_model.xml")
        if found != self._spec.precision:
            raise ConfigurationError(
                name,
                "precision",
                f"says {self._spec.precision}, but {model_dir} holds {found} weights",
                f"write `precision: {found}`, or convert the model again",
            )


def engine_version() -> str:
    """Return the engine's name and version, for what was measured on it."""
    try:
        return f"openvino-genai {version('openvino-genai')}"
    except PackageNotFoundError:
        return "openvino-genai of an unknown version"


def stored_precision(model_xml: Path) -> Precision:
    """Return the type of most weights of an OpenVINO IR, by number of elements."""
    elements: Counter[Precision] = Counter()
    for kind, size in WEIGHTS.findall(model_xml.read_bytes()):
        name = kind.decode()
        if name in BITS:
            elements[STORED_AS[name]] += int(size) * 8 // BITS[name]
    return elements.most_common(1)[0][0] if elements else "fp32"
