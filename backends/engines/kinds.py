"""Every kind of engine by the name that recipes use."""

from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version

from backends.engines.command import CommandLauncher
from backends.engines.devices import DeviceBytes
from backends.engines.launcher import EngineLauncher, EngineSpec, SingleTenant, nobody_alone
from backends.engines.llama_server import LlamaServerLauncher
from backends.engines.openvino import OpenVinoLauncher
from backends.engines.recipes import EngineKind, Recipe
from backends.engines.transformers import TransformersLauncher
from backends.engines.vllm import VllmLauncher

Build = Callable[[EngineSpec, DeviceBytes, SingleTenant], EngineLauncher]

KINDS: dict[EngineKind, Build] = {
    "openvino": lambda spec, _, alone: OpenVinoLauncher(spec, single_tenant=alone),
    "transformers": lambda spec, _, alone: TransformersLauncher(spec, single_tenant=alone),
    "vllm": lambda spec, device_bytes, alone: VllmLauncher(spec, device_bytes, single_tenant=alone),
    "llama-server": lambda spec, _, alone: LlamaServerLauncher(spec, single_tenant=alone),
    "command": lambda spec, device_bytes, alone: CommandLauncher(spec, device_bytes, single_tenant=alone),
}


def launcher_of(
    recipe: Recipe, device_bytes: DeviceBytes, *, single_tenant: SingleTenant = nobody_alone
) -> EngineLauncher:
    """Return what starts the recipe's engine.

    Args:
        recipe: which engine, and how.
        device_bytes: returns the memory of a device such as `cpu` or `cuda:0`.
        single_tenant: tells whether one tenant alone uses the engine.

    Raises:
        ConfigurationError: an option is unknown, of the wrong kind, or contradicts another.
    """
    return KINDS[recipe.engine](recipe.spec, device_bytes, single_tenant)


DISTRIBUTIONS: dict[EngineKind, str] = {"openvino": "openvino-genai", "transformers": "transformers"}


def engine_version(kind: EngineKind) -> str:
    """Return the engine's name and version, for what was measured on it; engines of others tell none."""
    name = DISTRIBUTIONS.get(kind, kind)
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} of an unknown version"
