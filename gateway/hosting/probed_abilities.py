"""What the conformance probe measured of recipes: made on an engine of its own, kept beside the state, read at start.

Closed on doubt: what was found on other weights, another precision or by other questions does not count, and the guards
of `core.plan.TEXT_ALONE` hold until the probe has run again. What operator or recipe declare goes before it.
"""

import logging
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import httpx
import msgspec

from backends.ability_probe import AbilityProbe, Found, Missed, ProbeFailed
from backends.declared_abilities import DeclaredAbilities
from backends.engines.devices import device_bytes
from backends.engines.kinds import engine_version, launcher_of
from backends.engines.recipes import Recipe
from backends.engines.weights_digest import recipe_digest
from backends.probe_questions import QUESTIONS_VERSION
from core.clock import Clock
from core.errors import ConfigurationError
from core.facts import Script
from core.plan import TEXT_ALONE, Abilities
from gateway.files import write_whole
from gateway.hosting.one_engine import engine_failure, one_engine

logger = logging.getLogger("headgate.abilities")
ANSWER_TIMEOUT_S = 600.0


class ProbedAbilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file of one probe: what was probed, by which questions, and what was found.

    `measured_context_tokens` is None where the model finds no fact again even in a short prompt.
    """

    recipe: str
    model: str
    precision: str
    engine: str
    weights_digest: str | None
    questions: int
    probed_at: datetime
    tools: bool
    json: bool
    scripts: tuple[Script, ...]
    measured_context_tokens: int | None
    asked: int
    missed: tuple[Missed, ...]

    @property
    def abilities(self) -> Abilities:
        """Return what may be asked of the model; Latin script, which tiers are built on, is never taken away."""
        scripts: tuple[Script, ...] = self.scripts if "latin" in self.scripts else ("latin", *self.scripts)
        return Abilities(self.tools, self.json, False, scripts, self.measured_context_tokens)

    @property
    def summary(self) -> str:
        """Return what was passed, in words."""
        passed = [name for name, is_able in (("tools", self.tools), ("json", self.json)) if is_able]
        length = self.measured_context_tokens
        return ", ".join([*passed, *self.scripts, *([] if length is None else [f"{length} tokens"])]) or "nothing"


def probed_file(state_dir: Path, recipe_name: str) -> Path:
    """Return where the probe of a recipe lies."""
    return state_dir / "abilities" / f"{recipe_name}.json"


def abilities_of(declared: DeclaredAbilities, recipe: Recipe, state_dir: Path) -> Abilities:
    """Return what a hosted deployment may be asked for: as declared, else as its recipe says, else as probed.

    Raises:
        ConfigurationError: the file of the probe is broken.
    """
    probed = probed_abilities(recipe, state_dir)
    measured = TEXT_ALONE if probed is None else probed.abilities
    return declared.over(recipe.abilities.over(measured))


def probed_abilities(recipe: Recipe, state_dir: Path) -> ProbedAbilities | None:
    """Return what was probed of these weights by the present questions, None where nothing was.

    Raises:
        ConfigurationError: the file is broken.
    """
    path = probed_file(state_dir, recipe.name)
    if not path.is_file():
        return None
    probed = _parse(path, recipe.name)
    if _identity(probed) == (recipe.spec.model, recipe.spec.precision, recipe_digest(recipe), QUESTIONS_VERSION):
        return probed
    logger.warning("abilities were probed on another model and do not count", extra={"recipe": recipe.name})
    return None


async def probe_recipe(
    recipe: Recipe, clock: Clock, on_step: Callable[[str], None] = lambda _: None
) -> ProbedAbilities:
    """Start the recipe's engine by itself on a free port, ask it everything, and stop it.

    Raises:
        ConfigurationError: it does not start, or fails meanwhile.
    """
    recipe = replace(recipe, spec=replace(recipe.spec, port=None))
    launcher = launcher_of(recipe, device_bytes, single_tenant=lambda: True)
    with tempfile.TemporaryDirectory(prefix="headgate-probe-") as folder:
        async with one_engine(launcher, Path(folder), clock) as engine:
            try:
                found = await _probe(engine.base_url or "", recipe, on_step)
            except ProbeFailed as problem:
                raise engine_failure(recipe.name, str(problem)) from problem
    return probed_of(recipe, found, clock.now())


async def _probe(base_url: str, recipe: Recipe, on_step: Callable[[str], None]) -> Found:
    async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=ANSWER_TIMEOUT_S) as client:
        return await AbilityProbe(client, recipe.spec.model, recipe.spec.context_tokens).run(on_step)


def probed_of(recipe: Recipe, found: Found, at: datetime) -> ProbedAbilities:
    """Return the record of what was found of a recipe at a moment (aware)."""
    return ProbedAbilities(
        recipe=recipe.name,
        model=recipe.spec.model,
        precision=recipe.spec.precision,
        engine=engine_version(recipe.engine),
        weights_digest=recipe_digest(recipe),
        questions=QUESTIONS_VERSION,
        probed_at=at.astimezone(UTC).replace(microsecond=0),
        tools=found.tools,
        json=found.json,
        scripts=found.scripts,
        measured_context_tokens=found.context_tokens,
        asked=found.asked,
        missed=found.missed,
    )


def write_probed(path: Path, probed: ProbedAbilities) -> None:
    """Write the file that a start reads; raises ConfigurationError when it cannot be written."""
    text = msgspec.json.format(msgspec.json.encode(probed), indent=1).decode()
    write_whole(path, text + "\n", check=lambda draft: _parse(draft, probed.recipe))


def _identity(probed: ProbedAbilities) -> tuple[str, str, str | None, int]:
    return probed.model, probed.precision, probed.weights_digest, probed.questions


def _parse(path: Path, recipe_name: str) -> ProbedAbilities:
    try:
        return msgspec.json.decode(path.read_bytes(), type=ProbedAbilities)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as problem:
        mend = f"run `headgate models check {recipe_name} --probe` again, or delete the file"
        raise ConfigurationError(str(path), "", f"is no record of a probe ({problem})"[:200], mend) from problem
