"""The policy in force, value by value, and the file and line that decided each; and what two policies differ in."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from core.money import usd_text
from core.rules import Budget, RoutingRule, TenantPolicy
from policies.documents import Origin
from policies.safe_yaml import KeyPath

UNLIMITED = frozenset({"requests_per_minute", "tokens_per_minute", "concurrency", "ttft_ms", "total_ms"})


@dataclass(frozen=True, slots=True)
class Decided:
    """One value in force; without an origin it is the program's own default."""

    path: KeyPath
    value: str
    origin: Origin | None


@dataclass(frozen=True, slots=True)
class Change:
    """One value that differs; None on a side that does not have it."""

    tenant: str
    path: KeyPath
    old: str | None
    new: str | None


def decided(policy: TenantPolicy, wrote: Mapping[KeyPath, Origin]) -> tuple[Decided, ...]:
    """Return every value of `policy` in the order of the tenant's file; `wrote` is what `origins` returned."""
    return tuple(Decided(path, value, _origin(path, wrote)) for path, value in values(policy))


def values(policy: TenantPolicy) -> Iterator[tuple[KeyPath, str]]:
    """Yield every value in force with its path, budgets as one line each."""
    yield ("tenant",), policy.tenant
    for alias, target in policy.models.items():
        yield ("models", alias), target
    yield ("tiers",), ", ".join(policy.tiers)
    yield ("deployments",), ", ".join(sorted(policy.deployments)) or "none"
    for at, budget in enumerate(policy.budgets):
        yield ("budgets", at), budget_text(budget)
    if not policy.budgets:
        yield ("budgets",), "none"
    yield from _fields("limits", asdict(policy.limits))
    yield from _fields("key_limits", asdict(policy.key_limits))
    yield ("service_class",), policy.service_class
    yield ("priority",), policy.priority
    for tier, sla in policy.sla.items():
        for path, value in _fields("sla", asdict(sla)):
            yield (path[0], tier, *path[1:]), value
    yield from _routing(policy)
    yield from _fields("cache", asdict(policy.cache))
    yield ("max_output_tokens",), _text("max_output_tokens", policy.max_output_tokens)
    yield ("on_store_outage",), policy.on_store_outage
    yield ("when_loading",), policy.when_loading
    yield ("fallback",), _text("fallback", policy.fallback)
    yield ("record_content",), _text("record_content", policy.record_content)


def budget_text(budget: Budget) -> str:
    """Say one budget in one line, such as `5 USD a month (UTC), then small_only`."""
    window = f"rolling {budget.window}" if budget.rolling else f"{budget.window} ({budget.zone.key})"
    parts = [f"{usd_text(budget.limit_nano_usd)} USD per {window}"]
    if budget.per != "tenant":
        parts.append(f"for each {budget.per}")
    if budget.tier is not None:
        parts.append(f"tier {budget.tier} alone")
    parts.append("soft" if budget.soft else f"then {budget.when_exhausted}")
    if budget.alerts_percent:
        parts.append(f"alerts at {', '.join(f'{percent} %' for percent in budget.alerts_percent)}")
    return ", ".join(parts)


def rule_text(rule: RoutingRule) -> str:
    """Say one rule in one line, such as `legal: tags legal or clinical, tools true > large`."""
    facts = []
    for name, value in asdict(rule.when).items():
        if value is not None:
            several = " or ".join(value) if isinstance(value, tuple) else _text(name, value)
            facts.append(f"{name} {several}")
    use = rule.use if isinstance(rule.use, str) else ", ".join(rule.use)
    return f"{rule.name}: {', '.join(facts)} > {use}"


def differences(old: Mapping[str, TenantPolicy], new: Mapping[str, TenantPolicy]) -> tuple[Change, ...]:
    """Return what changes in force for whom, by tenant; how it is spelled or split over files does not matter."""
    changes = []
    for tenant in sorted({*old, *new}):
        before = dict(values(old[tenant])) if tenant in old else {}
        after = dict(values(new[tenant])) if tenant in new else {}
        changes += [
            Change(tenant, path, before.get(path), after.get(path))
            for path in dict.fromkeys((*before, *after))
            if before.get(path) != after.get(path)
        ]
    return tuple(changes)


def _fields(name: str, content: Mapping[str, object]) -> Iterator[tuple[KeyPath, str]]:
    for key, value in content.items():
        yield (name, key), _text(key, value)


def _routing(policy: TenantPolicy) -> Iterator[tuple[KeyPath, str]]:
    """Yield the knob that is set, or the one that applies without any."""
    routing = policy.routing
    if routing.max_large_share is not None:
        yield ("routing", "max_large_share"), _text("max_large_share", routing.max_large_share)
    elif routing.target_cost_nano_usd is not None:
        yield ("routing", "target_cost_usd"), usd_text(routing.target_cost_nano_usd)
    else:
        yield ("routing", "quality"), "0.5" if routing.quality is None else _text("quality", routing.quality)
    for path, value in _fields("sessions", asdict(routing.sessions)):
        yield ("routing", *path), value
    for path, value in _fields("cascade", asdict(routing.cascade)):
        yield ("routing", *path), value
    for at, rule in enumerate(routing.rules):
        yield ("routing", "rules", at), rule_text(rule)
    yield ("routing", "give_way"), ", ".join(routing.give_way)
    for key in ("explore_ratio", "shadow_ratio", "learn_from_retries", "promotion"):
        yield ("routing", key), _text(key, getattr(routing, key))
    yield ("routing", "shadow_budget_usd"), usd_text(routing.shadow_budget_nano_usd)


def _text(key: str, value: object) -> str:
    if value is None:
        return "unlimited" if key in UNLIMITED else "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _origin(path: KeyPath, wrote: Mapping[KeyPath, Origin]) -> Origin | None:
    """Return who wrote the value, or who took away, with `null`, it or what it stood in."""
    own = wrote.get(path)
    if own is not None:
        return own
    above = wrote.get(path[:-1])
    has_others = any(other[: len(path) - 1] == path[:-1] and len(other) >= len(path) for other in wrote)
    return above if len(path) > 1 and above is not None and not has_others else None
