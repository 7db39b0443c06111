"""Launches the transformers worker: for machines with torch and no other engine, on CPU or one CUDA device."""

import importlib.util
from typing import Literal

import msgspec

from backends.engines.launcher import Capabilities, EngineSpec, SingleTenant, nobody_alone
from backends.engines.model_files import HALF, check_precision, hugging_face_precision
from backends.engines.options import parse_options, refuse_small_cache
from backends.engines.worker_launcher import (
    WORKER,
    caches_prefixes,
    first_request,
    visible_devices,
    worker_command,
    worker_environment,
)
from core.errors import ConfigurationError


class _Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe for this engine; see `transformers_server --help`."""

    threads: int = 1
    max_running: int = 16
    max_queued: int = 256
    batch_tokens: int = 512
    cache_tokens: int | None = None
    page_tokens: int = 32
    attention: Literal["sdpa", "paged|eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    default_temperature: float = 1.0


class TransformersLauncher:
    """Runs `backends.engines.transformers_server` for one recipe."""

    def __init__(self, spec: EngineSpec, *, single_tenant: SingleTenant = nobody_alone) -> None:
        """Check the options; raises ConfigurationError when one is unknown or of the wrong kind."""
        self._spec = spec
        self._single_tenant = single_tenant
        self._options = parse_options(spec, _Options)
        refuse_small_cache(spec, self._options.cache_tokens)
        if len(spec.devices) != 1:
            mend = "name one device, or use the engine vllm for several"
            raise ConfigurationError(f"recipe {spec.name}", "devices", "transformers runs on one device", mend)

    @property
    def spec(self) -> EngineSpec:
        """Return what the recipe says."""
        return self._spec

    def command(self, port: int) -> tuple[str, ...]:
        """Return the worker's argument vector.

        Raises:
            ConfigurationError: transformers is not installed, or the weights are missing or of another precision.
        """
        spec, options = self._spec, self._options
        if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
            mend = "install torch and transformers beside headgate"
            raise ConfigurationError(f"recipe {spec.name}", "engine", "transformers is not installed", mend)
        found = hugging_face_precision(spec.model_dir, spec.name)
        check_precision(spec.precision, found, spec.model_dir, spec.name)
        arguments: dict[str, object] = {
            "threads": options.threads,
            "max-running": options.max_running,
            "max-queued": options.max_queued,
            "batch-tokens": options.batch_tokens,
            "cache-tokens": options.cache_tokens,
            "page-tokens": options.page_tokens,
            "attention": options.attention,
            "default-temperature": options.default_temperature,
            "device": "cpu" if spec.devices == ("cpu",) else "cuda",
            "precision": spec.precision if spec.precision in HALF else None,
            "memory-bytes": spec.memory_bytes,
        }
        caching = caches_prefixes(spec, single_tenant=self._single_tenant())
        flags = ("--prefix-caching",) if caching else ()
        return worker_command("backends.engines.transformers_server", spec, port, arguments, flags)

    def environment(self) -> dict[str, str]:
        """Return an environment without secrets, in which only the recipe's device is seen."""
        return worker_environment() | visible_devices(self._spec)

    def warm_up_body(self) -> bytes:
        """Return a chat request for one token."""
        return first_request(self._spec.model)

    def capabilities(self) -> Capabilities:
        """Return what the worker can do."""
        return WORKER
