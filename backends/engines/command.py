"""Launches any OpenAI-compatible server from a command line, so that an operator's engine is supervised like ours."""

import os
import re
import shutil

import msgspec

from backends.engines.bare_environment import QUIET, inherited_environment, visible_devices
from backends.engines.devices import DeviceBytes, memory_ratio
from backends.engines.launcher import Capabilities, EngineSpec, SingleTenant, caches_prefixes, nobody_alone
from backends.engines.options import parse_options
from core.errors import ConfigurationError

RATIO = "memory_ratio"
PLACEHOLDER = re.compile(r"\{(\w+)\}")


class _Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe for this kind.

    Attributes:
        command: program and arguments, in which `{port}`, `{model}`, `{weights}`, `{context_tokens}`,
            `{max_output_tokens}`, `{memory_bytes}`, `{memory_ratio}` (of the device) and `{devices}` are filled in; no
            shell is involved.
        environment: variables beside the few that every engine gets; placeholders are filled in, too.
        prefix_caching_off: arguments that switch prefix caching off, added when tenants could time each other.
        isolates_prefixes: whether the server keeps prefixes apart by the field `cache_salt`.
    """

    command: list[str]
    environment: dict[str, str] = {}
    prefix_caching_off: list[str] | None = None
    health_path: str = "/health"
    isolates_prefixes: bool = False
    cancels_on_disconnect: bool = True
    drains_on_sigterm: bool = False


class CommandLauncher:
    """Runs the recipe's command line."""

    def __init__(
        self, spec: EngineSpec, device_bytes: DeviceBytes, *, single_tenant: SingleTenant = nobody_alone
    ) -> None:
        """Check the options; raises ConfigurationError when one cannot be used."""
        self._spec = spec
        self._device_bytes = device_bytes
        self._single_tenant = single_tenant
        self._options = parse_options(spec, _Options)
        self._values = {
            "model": spec.model,
            "weights": str(spec.model_dir),
            "context_tokens": str(spec.context_tokens),
            "max_output_tokens": str(spec.max_output_tokens),
            "memory_bytes": str(spec.memory_bytes),
            "devices": ",".join(device.partition(":")[2] or "0" for device in spec.devices if device != "cpu"),
        }
        self._check()

    @property
    def spec(self) -> EngineSpec:
        """Return what the recipe says."""
        return self._spec

    def command(self, port: int) -> tuple[str, ...]:
        """Return the command line with its placeholders filled in.

        The environment cannot know the port before this is called, so variables with `{port}` go through `env`.

        Raises:
            ConfigurationError: the program or the weights are missing, or tenants would share prefixes unasked.
        """
        options, spec = self._options, self._spec
        program = shutil.which(os.path.expanduser(options.command[0]))
        if program is None:
            mend = "install it, or correct the path"
            raise self._error("options.command", f"{options.command[0]} is not there", mend)
        if self._uses("weights") and not spec.model_dir.exists():
            mend = "correct the path, or fetch it with `headgate models pull`"
            raise self._error("weights", f"{spec.model_dir} does not exist", mend)
        arguments = (*options.command[1:], *self._prefix_arguments())
        late = [f"{name}={self._filled(text, port)}" for name, text in options.environment.items() if "{port}" in text]
        env = ("/usr/bin/env", *late) if late else ()
        return (*env, program, *(self._filled(part, port) for part in arguments))

    def environment(self) -> dict[str, str]:
        """Return the few inherited variables and the recipe's own."""
        own = {name: self._filled(text, 0) for name, text in self._options.environment.items() if "{port}" not in text}
        return inherited_environment() | QUIET | visible_devices(self._spec) | own

    def capabilities(self) -> Capabilities:
        """Return what the recipe says of the server."""
        options = self._options
        return Capabilities(
            health_path=options.health_path,
            isolates_prefixes=options.isolates_prefixes,
            cancels_on_disconnect=options.cancels_on_disconnect,
            drains_on_sigterm=options.drains_on_sigterm,
        )

    def _prefix_arguments(self) -> list[str]:
        """Return what switches prefix caching off where tenants would share it."""
        options, spec = self._options, self._spec
        if options.isolates_prefixes and spec.prefix_caching:
            return []
        if caches_prefixes(spec, single_tenant=self._single_tenant()):
            return []
        if options.prefix_caching_off is None and spec.prefix_caching:
            mend = "give options.prefix_caching_off, or say `share_prefix_cache: true` or `prefix_caching: false`"
            raise self._error("prefix_caching", "would let tenants time each other's prompts", mend)
        return options.prefix_caching_off or []

    def _check(self) -> None:
        texts = [*self._options.command, *self._options.environment.values()]
        used = {name for text in texts for name in PLACEHOLDER.findall(text)}
        known = {*self._values, "port", RATIO}
        if not self._options.command:
            raise self._error("options.command", "is empty", "write the program and its arguments as a list")
        for name in sorted(used - known):
            mend = f"use one of {', '.join(sorted(known))}"
            raise self._error("options.command", f"{{{name}}} is no placeholder", mend)
        if "port" not in used and self._spec.port is None:
            mend = "put {port} into the command or the environment, or set `port`"
            raise self._error("options.command", "does not say the port", mend)

    def _uses(self, name: str) -> bool:
        return any(f"{{{name}}}" in text for text in (*self._options.command, *self._options.environment.values()))

    def _filled(self, text: str, port: int) -> str:
        values = self._values | {"port": str(port)}
        if f"{{{RATIO}}}" in text:
            values[RATIO] = str(memory_ratio(self._spec, self._device_bytes))
        return PLACEHOLDER.sub(lambda found: values[found[1]], text)

    def _error(self, key: str, problem: str, mend: str) -> ConfigurationError:
        return ConfigurationError(f"recipe {self._spec.name}", key, problem, mend)
