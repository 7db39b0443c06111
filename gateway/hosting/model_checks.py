"""Checks a recipe against what is on this machine, and tries it: weights, digests, memory, the first token."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from backends.engines.cpu_time import group_resident_bytes
from backends.engines.devices import device_bytes
from backends.engines.kinds import launcher_of
from backends.engines.memory import MemoryBudget
from backends.engines.probe import EngineProbe
from backends.engines.pulling import read_note, verify
from backends.engines.recipes import Recipe
from backends.engines.weights_digest import recipe_digest
from core.clock import Clock
from core.errors import ConfigurationError
from gateway.hosting.one_engine import one_engine
from policies.prices import parse_price


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found of a recipe's weights.

    Attributes:
        digest: of the weights, as a recipe's `weights_digest` may state it; None for weights in no known format.
        weights_bytes: their size on disk.
        verified_files: how many files were compared with what was pulled.
    """

    recipe: str
    digest: str | None
    weights_bytes: int
    verified_files: int


@dataclass(frozen=True, slots=True)
class Warmed:
    """How a recipe's engine started: seconds to the first token, to one more, and resident bytes (None: unknown)."""

    recipe: str
    start_s: float
    answer_s: float
    resident_bytes: int | None


def check_recipe(recipe: Recipe, *, digests: bool) -> Checked:
    """Check all that can be checked without starting the engine.

    Args:
        recipe: what to check.
        digests: whether to read every byte of what was pulled, which takes as long as the disk needs.

    Raises:
        ConfigurationError: the first thing that cannot be used, with the mend.
    """
    spec, name = recipe.spec, f"recipe {recipe.name}"
    parse_price(dict(recipe.price), str(recipe.file), "price")
    launcher_of(recipe, device_bytes).command(port=1)
    shortfall = MemoryBudget(device_bytes).shortfall(recipe.name, spec.memory_bytes, spec.devices)
    if shortfall is not None:
        raise ConfigurationError(name, "memory_bytes", shortfall, "lower it, or use a larger device")
    size = _size(spec.model_dir)
    if recipe.engine != "command" and size > spec.memory_bytes:
        problem = f"is below the {size / 2**20:.0f} MiB that the weights alone take"
        raise ConfigurationError(name, "memory_bytes", problem, "raise it to weights and KV cache together")
    digest = recipe_digest(recipe)
    if recipe.weights_digest is not None and digest != recipe.weights_digest:
        problem = f"says {recipe.weights_digest}, but the weights are {digest}"
        raise ConfigurationError(name, "weights_digest", problem, "use the weights that are meant, or correct it")
    return Checked(recipe.name, digest, size, _verified(recipe) if digests else 0)


async def warm_recipe(recipe: Recipe, clock: Clock) -> Warmed:
    """Start the recipe's engine by itself, have it answer, and stop it; its files are in the page cache then.

    Raises:
        ConfigurationError: it does not start or answer; the line says why.
    """
    launcher = launcher_of(recipe, device_bytes, single_tenant=lambda: True)
    began_s = clock.monotonic_s()
    with tempfile.TemporaryDirectory(prefix="headgate-") as folder:
        async with one_engine(launcher, Path(folder), clock) as engine:
            start_s = clock.monotonic_s() - began_s
            url = (engine.base_url or "").removesuffix("/v1")
            async with EngineProbe(url, recipe.spec.start_timeout_s) as probe:
                await probe.generates(recipe.spec.model, recipe.spec.start_timeout_s)
            answer_s = clock.monotonic_s() - began_s - start_s
            resident = None if engine.group is None else group_resident_bytes(engine.group)
    return Warmed(recipe.name, start_s, answer_s, resident)


def _verified(recipe: Recipe) -> int:
    pulled = read_note(recipe.spec.model_dir)
    if pulled is None:
        mend = "fetch them with `headgate models pull`, or check without --digests"
        raise ConfigurationError(f"recipe {recipe.name}", "weights", "were not pulled, so nothing tells digests", mend)
    verify(recipe.spec.model_dir, pulled, recipe.name)
    return len(pulled.files)


def _size(weights: Path) -> int:
    if weights.is_file():
        return weights.stat().st_size
    return sum(path.stat().st_size for path in weights.rglob("*") if path.is_file())
