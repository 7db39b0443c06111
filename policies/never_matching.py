"""Rules that can never match, or never bind, in a policy that is otherwise valid: found by reading, not by traffic.

A budget is never reached where a stricter one refuses first: one that refuses, counts at least the same requests in a
window that always contains this one's, and has no larger limit.
"""

from collections.abc import Callable, Iterator, Mapping

from core.money import usd_text
from core.rules import Budget, TenantPolicy
from policies.building import AUTO
from policies.checking import CheckedTenant
from policies.findings import Finding, warning
from policies.routing_rules import covers
from policies.safe_yaml import KeyPath

Warn = Callable[[str, KeyPath, str], Finding]
CONTAINED = {
    "minute": {"minute", "hour", "day", "week", "month"},
    "hour": {"hour", "day", "week", "month"},
    "day": {"day", "week", "month"},
    "week": {"week"},
    "month": {"month"},
}
"""The calendar windows that always contain a whole one of this kind; a week may lie in two months."""
LENGTH_ORDER = ("minute", "hour", "day", "week", "month")


def doubts(tenant: CheckedTenant, tiers: Mapping[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Yield a warning for each rule of the tenant that does nothing.

    Args:
        tenant: the policy and who wrote it.
        tiers: the operator's tiers, cheapest first, and their deployments.
    """
    policy = tenant.policy

    def warn(code: str, path: KeyPath, message: str) -> Finding:
        return warning(code, path, message, tenant.wrote, tenant.file)

    yield from _aliases(policy, warn)
    yield from _tier_rules(tenant, _reachable_tiers(policy, tiers), warn)
    yield from _budgets(policy, warn)
    yield from _shadowed_rules(policy, warn)
    yield from _coverage(policy, _reachable_tiers(policy, tiers), warn)
    yield from _knobs(tenant, warn)


def _reachable_tiers(policy: TenantPolicy, tiers: Mapping[str, tuple[str, ...]]) -> dict[str, None]:
    """Return the tiers under whose name a request of this tenant can be answered, in the operator's order."""
    named = {*policy.models.values(), *policy.deployments}
    homes = {next((tier for tier, names in tiers.items() if name in names), "") for name in named}
    return {tier: None for tier in tiers if tier in policy.tiers or tier in homes}


def _aliases(policy: TenantPolicy, warn: Warn) -> Iterator[Finding]:
    for alias, target in policy.models.items():
        if alias != target and alias in (AUTO, *policy.tiers, *policy.deployments):
            message = f"hides {alias!r} itself, which can no longer be asked for; rename the alias"
            yield warn("hidden-name", ("models", alias), message)


def _tier_rules(tenant: CheckedTenant, reachable: Mapping[str, None], warn: Warn) -> Iterator[Finding]:
    """What is written for a tier that the tenant cannot use; inherited SLAs are for others, too."""
    policy = tenant.policy
    for tier in policy.sla:
        if tier not in reachable and not tenant.is_inherited(("sla", tier)):
            yield warn("never-matches", ("sla", tier), f"the tenant may not use the tier {tier!r}; remove it")
    for at, budget in enumerate(policy.budgets):
        if budget.tier is not None and budget.tier not in reachable:
            message = f"the tenant may not use the tier {budget.tier!r}, so nothing is ever counted; remove it"
            yield warn("never-matches", ("budgets", at), message)


def _shadowed_rules(policy: TenantPolicy, warn: Warn) -> Iterator[Finding]:
    rules = policy.routing.rules
    for at, rule in enumerate(rules):
        earlier = next((other for other in rules[:at] if covers(other.when, rule.when)), None)
        if earlier is not None:
            message = f"never decides: what fits it fits the rule {earlier.name!r} before it; move it up or remove it"
            yield warn("never-matches", ("routing", "rules", at), message)


def _budgets(policy: TenantPolicy, warn: Warn) -> Iterator[Finding]:
    for at, budget in enumerate(policy.budgets):
        path = ("budgets", at)
        if budget.soft and not budget.alerts_percent:
            yield warn("no-effect", path, "a soft budget without `alerts` does nothing; add alerts")
        if not budget.soft and any(percent > 100 for percent in budget.alerts_percent):
            yield warn(
                "never-matches", path, "an alert above 1.0 is never raised, since the budget ends at 1.0; lower it"
            )
        if not budget.soft and budget.limit_nano_usd == 0 and budget.when_exhausted == "reject":
            yield warn(
                "refuses-all",
                path,
                "a limit of 0 refuses every request that costs anything; raise it, or use cache_only",
            )
        stricter = next((other for other in policy.budgets if _refuses_first(other, budget)), None)
        if stricter is not None:
            message = (
                f"is never reached: the budget of {usd_text(stricter.limit_nano_usd)} USD per {stricter.window} "
                "refuses first; lower this one or remove it"
            )
            yield warn("never-matches", path, message)


def _refuses_first(other: Budget, budget: Budget) -> bool:
    if other is budget or other.soft or other.when_exhausted != "reject":
        return False
    reach = budget.limit_nano_usd * min((100, *budget.alerts_percent)) // 100
    if other.limit_nano_usd > reach or (budget.soft and other.limit_nano_usd == reach):
        return False
    counts_as_much = other.per in ("tenant", budget.per) and other.tier in (None, budget.tier)
    return counts_as_much and _always_contains(other, budget)


def _always_contains(other: Budget, budget: Budget) -> bool:
    if other.rolling:
        return LENGTH_ORDER.index(other.window) >= LENGTH_ORDER.index(budget.window)
    return not budget.rolling and other.zone == budget.zone and other.window in CONTAINED[budget.window]


def _coverage(policy: TenantPolicy, reachable: Mapping[str, None], warn: Warn) -> Iterator[Finding]:
    hard = [budget for budget in policy.budgets if not budget.soft]
    if not hard:
        yield warn("no-budget", ("budgets",), "no budget ends this tenant's spending; add one to `budgets`")
        return
    if any(budget.tier is None for budget in hard):
        return
    for tier in reachable:
        if tier not in {budget.tier for budget in hard}:
            message = f"the tier {tier!r} is granted, and no budget counts it; add one without `tier`, or for it"
            yield warn("no-budget", ("budgets",), message)


def _knobs(tenant: CheckedTenant, warn: Warn) -> Iterator[Finding]:
    """Settings without effect beside another one, where the tenant's own file wrote them."""
    policy = tenant.policy
    own_cache = [path for path in tenant.wrote if path[0] == "cache" and len(path) == 2]
    own_cache = [path for path in own_cache if not tenant.is_inherited(path)]
    for path in own_cache:
        if path[1] != "enabled" and not policy.cache.enabled:
            yield warn("no-effect", path, "the cache is not enabled; remove it, or enable the cache")
        elif path[1] in ("max_false_hit_rate", "shadow_ratio") and not policy.cache.semantic:
            yield warn("no-effect", path, "only semantic hits use it, and `cache.semantic` is false; remove it")
    if len(policy.tiers) == 1 and not tenant.is_inherited(("routing",)):
        yield warn(
            "no-effect", ("routing",), f"the tenant has one tier ({policy.tiers[0]}), so nothing is chosen; remove it"
        )
