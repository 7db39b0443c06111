"""The two models of an evaluation: a recipe, or what serves a tier; and where each is asked."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from backends.engines.evaluation import Evaluation, Identity, Run, Thresholds
from backends.engines.recipes import Recipe, load_recipe
from backends.engines.suite import Suite
from core.clock import Clock
from core.errors import ConfigurationError
from gateway.hosting.model_evaluating import (
    Advance,
    Effort,
    Endpoint,
    evaluation,
    identity_of,
    run_on_engine,
    run_suite,
)
from gateway.settings.deployments import HostedDeployment
from gateway.settings.operator import Settings
from policies.safe_yaml import load_yaml


@dataclass(frozen=True, slots=True)
class Side:
    """One model: its tier where a gateway is asked for it, and its recipe where the gateway hosts it."""

    tier: str | None
    recipe: Recipe | None


@dataclass(frozen=True, slots=True)
class Asker:
    """How both models are asked: on engines of their own, or with `key` through the gateway at `url`."""

    suite: Suite
    effort: Effort
    clock: Clock
    advance: Advance
    url: str | None = None
    key: str | None = None

    async def run(self, side: Side) -> tuple[Identity, Run]:
        """Ask one model everything.

        Raises:
            ConfigurationError: it cannot be started, or does not answer.
        """
        if self.url is not None and side.tier is not None:
            headers = {"authorization": f"Bearer {self.key}", "x-headgate-cache": "bypass"}
            endpoint = Endpoint(f"{self.url.rstrip('/')}/v1", side.tier, headers, tier=side.tier)
            return _identity(side), await run_suite(endpoint, self.suite, self.effort, self.clock, self.advance)
        if side.recipe is None:
            mend = "ask a running gateway for it with --url"
            raise ConfigurationError(f"tier {side.tier}", "", "has no engine that could be started", mend)
        recipe = replace(side.recipe, spec=replace(side.recipe.spec, port=None))
        with TemporaryDirectory(prefix="headgate-eval-") as folder:
            run = await run_on_engine(recipe, self.suite, self.effort, Path(folder), self.clock, self.advance)
        return _identity(side), run


def recipe_side(recipe: str) -> Side:
    """Return a recipe as a side; it is asked on an engine of its own."""
    return Side(None, load_recipe(recipe, load_yaml))


def tier_side(settings: Settings, tier: str, *, remote: bool) -> Side:
    """Return what serves a tier.

    Args:
        settings: the operator's choices.
        tier: its name.
        remote: whether a gateway is asked, where any deployment of the tier may answer; the result then belongs to a
            recipe only if no other deployment could have.

    Raises:
        ConfigurationError: there is no such tier, or its recipe cannot be read.
    """
    names = settings.tiers.get(tier)
    if names is None:
        mend = f"name one of {', '.join(settings.tiers)}"
        raise ConfigurationError(str(settings.file), "tiers", f"has no tier {tier!r}", mend)
    hosted = [one for name in names if isinstance(one := settings.deployments[name], HostedDeployment)]
    recipes = list(dict.fromkeys(one.recipe for one in hosted))
    certain = recipes and (not remote or (len(recipes) == 1 and len(hosted) == len(names)))
    return Side(tier, load_recipe(recipes[0], load_yaml) if certain else None)


async def evaluate(asker: Asker, subject: Side, reference: Side, least: Thresholds) -> Evaluation:
    """Run both, one after the other, and reduce them."""
    own, other = await asker.run(subject), await asker.run(reference)
    through = "engine" if asker.url is None else "gateway"
    return evaluation(asker.suite, own, other, asker.effort, through, least, asker.clock)


def _identity(side: Side) -> Identity:
    if side.recipe is not None:
        return identity_of(side.recipe)
    return Identity(name=side.tier or "", weights_digest=None, engine="remote", precision="unknown")
