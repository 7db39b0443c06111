"""What `headgate policy check` tells: everything wrong or doubtful in a configuration, without starting anything.

What start-up refuses is an error here; what is accepted and does no good is a warning.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from itertools import pairwise
from pathlib import Path

from backends.engines.recipes import Recipe, load_recipe
from core.errors import ConfigurationError
from core.money import Price, Usage
from core.plan import TEXT_ALONE, DeploymentSnapshot, Readiness, RegistrySnapshot
from core.rules import TenantPolicy
from gateway.hosting.probed_abilities import abilities_of
from gateway.settings.deployments import HostedDeployment, RemoteDeployment
from gateway.settings.operator import Settings, load_settings
from gateway.whatif.measurements import measured_deployments
from gateway.whatif.policy_examples import rules_without_example
from policies.abilities import missed_slas
from policies.checking import CheckedTenant, check_folder
from policies.documents import Origin, error_keys, key_text
from policies.findings import Finding, error_finding, in_order, warning
from policies.loading import PolicySet
from policies.never_matching import doubts
from policies.prices import parse_price, price_date
from policies.safe_yaml import KeyPath, load_yaml, parse_document, read_text
from policies.schema import nearest

OLD_PRICE = timedelta(days=180)
TYPICAL = Usage(1000, 500)
"""The request by which tiers are compared: cheapest first is what the operator's order promises."""


@dataclass(frozen=True, slots=True)
class Report:
    """All findings of a configuration, the tenants whose policies can be used, and the catalogue where it is whole."""

    findings: tuple[Finding, ...]
    tenants: Mapping[str, CheckedTenant] = field(default_factory=dict)
    settings: Settings | None = None

    def count(self, level: str) -> int:
        """Return how many findings are of this level."""
        return sum(finding.level == level for finding in self.findings)


def examine(config: Path, measurements: Path | None, today: date) -> Report:
    """Look through the operator's file and every policy; what is wrong there is a finding.

    Args:
        config: the operator's file.
        measurements: a request log to compare SLAs with, or None for the one beside the state.
        today: the day by which prices are called old.

    Raises:
        ConfigurationError: the request log cannot be read.
    """
    try:
        settings = load_settings(config)
    except ConfigurationError as error:
        return Report((_located(error, config),))
    if measurements is not None and not measurements.is_file():
        raise ConfigurationError(str(measurements), "", "there is no such file", "leave --measurements out")
    measured = measured_deployments(measurements or settings.beside("requests"))
    findings = set(_operator_findings(settings, today))
    tenants, wrong = check_folder(settings.policies, settings.known, settings.environment)
    findings |= wrong
    for tenant in tenants.values():
        findings |= set(doubts(tenant, settings.tiers))
        findings |= set(rules_without_example(tenant))
        findings |= set(missed_slas(tenant, settings.tiers, measured))
        findings |= set(_idle_stand_in(settings, tenant))
    if not wrong:
        policies = [tenant.policy for tenant in tenants.values()]
        findings |= set(_unused(settings, policies))
    return Report(tuple(in_order(findings)), tenants, settings)


def tenant_in_force(settings: Settings, policies: PolicySet, tenant: str) -> CheckedTenant:
    """Return a tenant's policy with who wrote each value.

    Raises:
        ConfigurationError: the tenant has no policy.
    """
    tenants, _ = check_folder(settings.policies, settings.known, settings.environment)
    if tenant not in tenants or tenant not in policies.tenants():
        close = nearest(tenant, policies.tenants())
        mend = f"did you mean {close!r}?" if close else f"use one of: {', '.join(policies.tenants()[:20])}"
        raise ConfigurationError(str(settings.policies), "", f"{tenant[:80]!r} has no policy", mend)
    return tenants[tenant]


def catalogue(settings: Settings) -> RegistrySnapshot:
    """Return the deployments as the planner would see them with everything ready.

    Raises:
        ConfigurationError: a recipe is missing or cannot be used.
    """
    return RegistrySnapshot({name: _snapshot(settings, name) for name in settings.deployments}, settings.tiers)


def _snapshot(settings: Settings, name: str) -> DeploymentSnapshot:
    deployment = settings.deployments[name]
    if not isinstance(deployment, HostedDeployment):
        limits = (deployment.context_tokens, deployment.max_output_tokens)
        model, price, serves = deployment.model, deployment.price, deployment.serves
        abilities = deployment.abilities if isinstance(deployment, RemoteDeployment) else TEXT_ALONE
        return DeploymentSnapshot(name, model, price, Readiness.READY, *limits, serves=serves, abilities=abilities)
    recipe = load_recipe(deployment.recipe, load_yaml)
    spec = recipe.spec
    price = deployment.price or recipe_price(recipe)
    limits = (spec.context_tokens, spec.max_output_tokens)
    abilities = abilities_of(deployment.abilities, recipe, settings.state_file.parent)
    return DeploymentSnapshot(name, spec.model, price, Readiness.READY, *limits, abilities=abilities, local=True)


def recipe_price(recipe: Recipe) -> Price:
    """Return the price that a recipe states; raises ConfigurationError when it cannot be used."""
    return parse_price(dict(recipe.price), str(recipe.file), "price")


def _idle_stand_in(settings: Settings, tenant: CheckedTenant) -> Iterator[Finding]:
    policy = tenant.policy
    granted = {name for tier in policy.tiers for name in settings.tiers[tier]} | policy.deployments
    is_idle = not any(isinstance(settings.deployments[name], RemoteDeployment) for name in granted)
    if policy.when_loading == "remote" and is_idle:
        message = "no remote deployment is granted, so none stands in; name one in `deployments`"
        yield warning("no-effect", ("when_loading",), message, tenant.wrote, tenant.file)


def _located(error: ConfigurationError, config: Path) -> Finding:
    """Find the line of the key that the operator's file is refused for, or of what it stands in."""
    try:
        lines = _lines(config)
    except ConfigurationError:
        return error_finding(error)
    for key in error_keys(error):
        while key and key not in lines:
            key = key.rpartition(".")[0]
        if key and error.file == str(config):
            return error_finding(error, Origin(error.file, lines[key]))
    return error_finding(error)


def _lines(config: Path) -> dict[str, int]:
    """Return the line of every key of the operator's file, keys written as errors write them."""
    return {key_text(path): line for path, line in parse_document(read_text(config), str(config)).lines.items()}


def _operator_findings(settings: Settings, today: date) -> Iterator[Finding]:
    file = str(settings.file)
    wrote = {path: Origin(file, line) for path, line in parse_document(read_text(settings.file), file).lines.items()}
    snapshots: dict[str, DeploymentSnapshot] = {}
    for name, deployment in settings.deployments.items():
        path = ("deployments", name)
        try:
            snapshots[name] = _snapshot(settings, name)
        except ConfigurationError as error:
            line = wrote[path].line
            yield Finding("error", "invalid", file, line, key_text((*path, "recipe")), error.message)
            continue
        if not isinstance(deployment, RemoteDeployment):
            continue
        if deployment.api_key_env is not None and not os.environ.get(deployment.api_key_env):
            message = f"{deployment.api_key_env} is not set here; without it `headgate serve` does not start"
            yield warning("missing-key", (*path, "api_key_env"), message, wrote, file)
        as_of = price_date(deployment.price)
        if as_of is not None and today - as_of > OLD_PRICE:
            message = f"the price table's figures are of {as_of}; compare them with the provider's, or write your own"
            yield warning("old-price", (*path, "price"), message, wrote, file)
    yield from _tier_order(settings, snapshots, wrote)


def _tier_order(
    settings: Settings, snapshots: Mapping[str, DeploymentSnapshot], wrote: Mapping[KeyPath, Origin]
) -> Iterator[Finding]:
    """Tiers are listed cheapest first, and the planner steps down in that order when money is short."""
    costs = {
        tier: min(snapshots[name].price.cost_nano_usd(TYPICAL) for name in names)
        for tier, names in settings.tiers.items()
        if all(name in snapshots for name in names)
    }
    for cheaper, dearer in pairwise(costs):
        if costs[cheaper] > costs[dearer]:
            message = f"costs more than the tier {dearer!r} after it; list tiers cheapest first"
            yield warning("tier-order", ("tiers", cheaper), message, wrote, str(settings.file))


def _unused(settings: Settings, policies: Sequence[TenantPolicy]) -> Iterator[Finding]:
    """Tell what no tenant can reach, and a webhook that no alert would use."""
    file = str(settings.file)
    wrote = {path: Origin(file, line) for path, line in parse_document(read_text(settings.file), file).lines.items()}
    in_tiers = {name for policy in policies for tier in policy.tiers for name in settings.tiers[tier]}
    named = {name for policy in policies for name in (*policy.deployments, *policy.models.values())}
    for name in settings.deployments:
        if name not in in_tiers | named:
            message = "no tenant can reach it: add it to a tier, or grant it in a policy"
            yield warning("unreachable", ("deployments", name), message, wrote, file)
    raises_alerts = any(budget.alerts_percent for policy in policies for budget in policy.budgets)
    if settings.alert_webhook is not None and not raises_alerts:
        yield warning(
            "no-effect", ("alerts",), "no budget has `alerts`, so nothing is ever sent; add some", wrote, file
        )
