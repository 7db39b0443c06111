"""From the tenant file as written to a `TenantPolicy` that is valid by construction."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from decimal import Decimal
from hashlib import blake2b
from types import MappingProxyType
from typing import NoReturn
from zoneinfo import ZoneInfo, available_timezones

import msgspec
from msgspec import UNSET

from core.errors import ConfigurationError
from core.money import NANO_PER_USD, nano_usd
from core.rules import (
    DEFAULT_GIVE_WAY,
    Budget,
    CacheRules,
    CascadeRules,
    Limits,
    Routing,
    SessionRules,
    Sla,
    TenantPolicy,
)
from policies.budgets import MAX_LIMIT_NANO_USD
from policies.documents import ALTERNATIVES
from policies.routing_rules import build_examples, build_rules
from policies.schema import BudgetEntry, RoutingEntry, SlaEntry, TenantFile, key_below, nearest

AUTO = "auto"
NOT_VERSIONED = frozenset({"version", "examples", "record_content"})
MAX_ALERT = 10
"""Alerts go up to ten times the limit, which a soft budget can reach."""
TENANT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_ALIAS = re.compile(r"[^\x00-\x20\x7f]{1,200}\Z")


@dataclass(frozen=True, slots=True)
class Known:
    """What the operator's file declares: tiers, cheapest first, and the names of all deployments."""

    tiers: tuple[str, ...]
    deployments: frozenset[str]


class _Refuse:
    """Raises errors about one file."""

    def __init__(self, file: str) -> None:
        self.file = file

    def __call__(self, key: str, problem: str, mend: str) -> NoReturn:
        raise ConfigurationError(self.file, key, problem, mend)

    def unknown(self, key: str, what: str, name: str, known: tuple[str, ...]) -> NoReturn:
        close = nearest(name, known)
        mend = f"did you mean {close!r}?" if close else f"use one of {', '.join(known) or '(none is configured)'}"
        self(key, f"unknown {what} {name[:80]!r}", mend)


def build_policy(written: TenantFile, known: Known, file: str) -> TenantPolicy:
    """Check what a schema cannot say and return the policy with its version.

    Raises:
        ConfigurationError: a name is unknown, an amount makes no sense, or rules contradict each other.
    """
    refuse = _Refuse(file)
    if written.tenant is UNSET:
        refuse("tenant", "the key is missing", "add the tenant's name")
    if not TENANT_NAME.match(written.tenant):
        refuse("tenant", f"{written.tenant[:80]!r} is not a tenant name", "use up to 64 letters, digits and . _ -")
    tiers = _tiers(written, known, refuse)
    routing = _routing(written.routing, tiers, known, refuse)
    rules = TenantPolicy(
        tenant=written.tenant,
        version="",
        models=MappingProxyType(_models(written.models, tiers, known, refuse)),
        tiers=tiers,
        deployments=_deployments(written.deployments, known, refuse),
        budgets=tuple(
            _budget(entry, f"budgets[{at}]", known, refuse, written.budgets[:at])
            for at, entry in enumerate(written.budgets)
        ),
        limits=Limits(**msgspec.structs.asdict(written.limits)),
        key_limits=Limits(**msgspec.structs.asdict(written.key_limits)),
        service_class=written.service_class,
        priority=written.priority,
        sla=MappingProxyType({tier: _sla(tier, entry, known, refuse) for tier, entry in written.sla.items()}),
        routing=routing,
        cache=CacheRules(**msgspec.structs.asdict(written.cache)),
        max_output_tokens=written.max_output_tokens,
        on_store_outage=written.on_store_outage,
        when_loading=written.when_loading,
        fallback=written.fallback,
        record_content=written.record_content,
        examples=build_examples(written.examples, routing.rules, known.tiers, refuse),
    )
    return _with_version(rules)


def _models(models: Mapping[str, str], tiers: tuple[str, ...], known: Known, refuse: _Refuse) -> dict[str, str]:
    targets = (AUTO, *tiers, *sorted(known.deployments))
    for alias, target in models.items():
        if not _ALIAS.match(alias):
            refuse(key_below("models", alias), "not a model name", "use up to 200 characters without spaces")
        if target in known.tiers and target not in targets:
            refuse(key_below("models", alias), f"the tier {target!r} is not among the tenant's `tiers`", "add it there")
        if target not in targets:
            refuse.unknown(key_below("models", alias), "target", target, targets)
    return dict(models)


def _tiers(written: TenantFile, known: Known, refuse: _Refuse) -> tuple[str, ...]:
    if written.tiers is UNSET:
        return known.tiers
    if not written.tiers:
        refuse("tiers", "the list is empty", "name a tier or remove the key to allow all")
    for tier in written.tiers:
        if tier not in known.tiers:
            refuse.unknown("tiers", "tier", tier, known.tiers)
    return tuple(tier for tier in known.tiers if tier in written.tiers)


def _deployments(names: list[str], known: Known, refuse: _Refuse, key: str = "deployments") -> frozenset[str]:
    for name in names:
        if name not in known.deployments:
            refuse.unknown(key, "deployment", name, tuple(sorted(known.deployments)))
    return frozenset(names)


def _budget(entry: BudgetEntry, key: str, known: Known, refuse: _Refuse, earlier: list[BudgetEntry]) -> Budget:
    if entry.tier is not None and entry.tier not in known.tiers:
        refuse.unknown(f"{key}.tier", "tier", entry.tier, known.tiers)
    if any(_rule(entry) == _rule(other) for other in earlier):
        refuse(key, "repeats an earlier budget of the same window, scope and consequence", "keep the one that is meant")
    if entry.soft and entry.when_exhausted is not UNSET:
        refuse(f"{key}.when_exhausted", "a soft budget is never exhausted", "remove it, or remove `soft`")
    return Budget(
        window=entry.window,
        zone=_zone(entry.zone, f"{key}.zone", refuse),
        limit_nano_usd=_amount(entry.limit_usd, f"{key}.limit_usd", refuse),
        when_exhausted="reject" if entry.when_exhausted is UNSET else entry.when_exhausted,
        per=entry.per,
        tier=entry.tier,
        rolling=entry.rolling,
        soft=entry.soft,
        alerts_percent=_alerts(entry.alerts, f"{key}.alerts", refuse),
    )


def _rule(entry: BudgetEntry) -> tuple[object, ...]:
    consequence = "reject" if entry.when_exhausted is UNSET else entry.when_exhausted
    return entry.window, entry.zone, entry.per, entry.tier, entry.rolling, entry.soft, consequence


def _alerts(fractions: list[Decimal], key: str, refuse: _Refuse) -> tuple[int, ...]:
    """Turn fractions of the limit into whole percents, smallest first."""
    percents: set[int] = set()
    for at, fraction in enumerate(fractions):
        where = f"{key}[{at}]"
        if not fraction.is_finite() or not 0 < fraction <= MAX_ALERT:
            refuse(where, f"{str(fraction)[:40]} is not a fraction of the limit", "write for example 0.8 for 80 %")
        percent = fraction * 100
        if percent != int(percent):
            refuse(where, f"{str(fraction)[:40]} is not a whole percent", "use at most two decimal places")
        if int(percent) in percents:
            refuse(where, f"{int(percent)} % is already in the list", "keep one")
        percents.add(int(percent))
    return tuple(sorted(percents))


def _amount(usd: Decimal, key: str, refuse: _Refuse) -> int:
    if not usd.is_finite() or usd < 0:
        refuse(key, f"{usd} is not an amount", "write 0 or more")
    if usd > MAX_LIMIT_NANO_USD // NANO_PER_USD:
        refuse(
            key, f"more than {MAX_LIMIT_NANO_USD // NANO_PER_USD} USD", "write less; a budget may use a shorter window"
        )
    try:
        return nano_usd(usd)
    except (ValueError, ArithmeticError):
        return refuse(key, f"{str(usd)[:40]} cannot be counted in nano-USD", "use at most nine decimal places")


def _zone(name: str, key: str, refuse: _Refuse) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        zones = available_timezones()
    if not zones:
        refuse(key, "no time zone database is installed", "install the package tzdata")
    close = nearest(name, zones)
    return refuse(
        key,
        f"unknown time zone {name[:60]!r}",
        f"did you mean {close!r}?" if close else "use a name such as Europe/Berlin",
    )


def _sla(tier: str, entry: SlaEntry, known: Known, refuse: _Refuse) -> Sla:
    if tier not in known.tiers:
        refuse.unknown(key_below("sla", tier), "tier", tier, known.tiers)
    if entry.ttft_ms is not None and entry.total_ms is not None and entry.ttft_ms > entry.total_ms:
        refuse(f"sla.{tier}.ttft_ms", "the first token may come later than the end", "lower it or raise total_ms")
    return Sla(**msgspec.structs.asdict(entry))


def _routing(entry: RoutingEntry, tiers: tuple[str, ...], known: Known, refuse: _Refuse) -> Routing:
    alternatives = ALTERNATIVES["routing"]
    knobs = [name for name in entry.__struct_fields__ if name in alternatives and getattr(entry, name) is not None]
    if len(knobs) > 1:
        refuse("routing", f"{' and '.join(knobs)} exclude each other", "keep one")
    target = entry.target_cost_usd
    target_nano_usd = None if target is None else _amount(target, "routing.target_cost_usd", refuse)

    def check_use(key: str, use: str | list[str]) -> None:
        if isinstance(use, list):
            if not use:
                refuse(key, "the list is empty", "name a deployment, or a tier")
            _deployments(use, known, refuse, key)
        elif use in known.tiers and use not in tiers:
            refuse(key, f"the tier {use!r} is not among the tenant's `tiers`", "add it there")
        elif use not in tiers:
            refuse.unknown(key, "tier", use, tiers)

    rules = build_rules(entry.rules, check_use, refuse)
    give_way = DEFAULT_GIVE_WAY if entry.give_way is None else tuple(entry.give_way)
    if sorted(give_way) != sorted(DEFAULT_GIVE_WAY):
        refuse("routing.give_way", "not each of the three once", "write for example [quality, cost, latency]")
    sessions = SessionRules(**msgspec.structs.asdict(entry.sessions))
    cascade = CascadeRules(**msgspec.structs.asdict(entry.cascade))
    if cascade.from_p > cascade.to_p:
        refuse("routing.cascade.from_p", "is above to_p", "lower it or raise to_p")
    holdout_ratio = _holdout_ratio(entry.holdout_ratio, refuse)
    return Routing(
        entry.quality,
        entry.max_large_share,
        target_nano_usd,
        rules,
        give_way,
        sessions,
        cascade,
        holdout_ratio,
        explore_ratio=entry.explore_ratio,
        shadow_ratio=entry.shadow_ratio,
        shadow_budget_nano_usd=_shadow_budget(entry, refuse),
        learn_from_retries=entry.learn_from_retries,
        promotion=entry.promotion,
    )


def _shadow_budget(entry: RoutingEntry, refuse: _Refuse) -> int:
    """Return what comparisons may cost; without a limit none may be made."""
    if (entry.shadow_ratio > 0) != (entry.shadow_budget_usd is not None):
        missing = "shadow_budget_usd" if entry.shadow_budget_usd is None else "shadow_ratio"
        refuse("routing", f"{missing} is missing beside the other of the two", "write both, or neither")
    usd = entry.shadow_budget_usd
    return 0 if usd is None else _amount(usd, "routing.shadow_budget_usd", refuse)


def _holdout_ratio(ratio: float, refuse: _Refuse) -> float:
    """Return the ratio as whole parts of 10,000, which is how the request log keeps it."""
    parts = round(ratio * 10_000)
    if abs(parts - ratio * 10_000) > 1e-6:
        refuse("routing.holdout_ratio", f"{ratio} has more than four decimal places", "write for example 0.01 for 1 %")
    return parts / 10_000


def _with_version(rules: TenantPolicy) -> TenantPolicy:
    """Stamp a digest of the effective rules; how they were spelled or split over files does not matter."""
    content = {field.name: getattr(rules, field.name) for field in fields(rules) if field.name not in NOT_VERSIONED}
    content["models"] = dict(rules.models)
    content["sla"] = {tier: asdict(sla) for tier, sla in rules.sla.items()}
    canonical = msgspec.json.encode(content, enc_hook=_zone_name, order="sorted")
    return replace(rules, version=blake2b(canonical, digest_size=6).hexdigest())


def _zone_name(value: object) -> str:
    assert isinstance(value, ZoneInfo)
    return value.key
