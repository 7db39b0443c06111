"""What the launchers of our own workers share: all but a kind's further options and the checks of its weights."""

import os
import sys
from abc import ABC, abstractmethod
from typing import ClassVar

import msgspec

from backends.engines.bare_environment import visible_devices, worker_environment
from backends.engines.launcher import Capabilities, EngineSpec, SingleTenant, caches_prefixes
from core.errors import ConfigurationError


class WorkerOptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe that every worker understands; see `--help` of the worker's module."""

    threads: int = 1
    max_running: int = 16
    max_queued: int = 256
    batch_tokens: int = 512
    cache_tokens: int | None = None
    default_temperature: float = 1.0


class WorkerLauncher(ABC):
    """Runs a worker module for one recipe."""

    MODULE: ClassVar[str]

    def __init__(self, spec: EngineSpec, options: WorkerOptions, single_tenant: SingleTenant) -> None:
        """Check what the options say together with the recipe.

        Args:
            spec: the recipe.
            options: its options as this kind of engine understands them.
            single_tenant: tells whether one tenant alone uses the engine, so that prefixes may be cached.

        Raises:
            ConfigurationError: the KV cache cannot hold one context.
        """
        self._spec = spec
        self._common = options
        self._single_tenant = single_tenant
        if options.cache_tokens is not None and options.cache_tokens < spec.context_tokens:
            problem = f"{options.cache_tokens} tokens cannot hold one context of {spec.context_tokens}"
            raise self._error("options.cache_tokens", problem, "raise it, or lower context_tokens")

    @property
    def spec(self) -> EngineSpec:
        """Return what the recipe says."""
        return self._spec

    def command(self, port: int) -> tuple[str, ...]:
        """Return the worker's argument vector.

        Raises:
            ConfigurationError: its library is not installed, or the weights are missing or of another precision.
        """
        self._check()
        spec = self._spec
        arguments: dict[str, object] = {
            "model-dir": spec.model_dir,
            "name": spec.model,
            "port": port,
            "parent-pid": os.getpid(),
            "context-tokens": spec.context_tokens,
            "max-output-tokens": spec.max_output_tokens,
            "drain-timeout": spec.drain_timeout_s,
            **{name.replace("_", "-"): value for name, value in self._arguments().items()},
        }
        pairs = tuple(f"--{name}={value}" for name, value in arguments.items() if value is not None)
        caching = caches_prefixes(spec, single_tenant=self._single_tenant())
        flags = ("--prefix-caching",) if caching else ()
        return (sys.executable, "-m", self.MODULE, *pairs, *flags)

    def environment(self) -> dict[str, str]:
        """Return an environment without secrets, in which only the recipe's devices are seen."""
        return worker_environment() | visible_devices(self._spec)

    def capabilities(self) -> Capabilities:
        """Return what every worker built on `WorkerApp` can do."""
        return Capabilities(
            health_path="/health", isolates_prefixes=False, cancels_on_disconnect=True, drains_on_sigterm=True
        )

    def _arguments(self) -> dict[str, object]:
        """Return the worker's own arguments by name: the options, and what a kind makes of the recipe beside them."""
        return msgspec.structs.asdict(self._common)

    @abstractmethod
    def _check(self) -> None:
        """Refuse weights that the worker could not serve."""

    def _error(self, key: str, problem: str, mend: str) -> ConfigurationError:
        return ConfigurationError(f"recipe {self._spec.name}", key, problem, mend)
