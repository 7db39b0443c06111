"""Join what the admin listener needs: the audit log, a key store for its threads, and the gateway's own parts."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from backends.registry import Registry
from cache.semantic_cache import SemanticCache
from gateway.admin.api import AdminApi, admin_app
from gateway.admin.budget_routes import BudgetAdministration
from gateway.admin.cache_administration import CacheAdministration
from gateway.admin.dashboard_routes import Dashboard, load_assets
from gateway.admin.engine_routes import EngineAdministration
from gateway.admin.insight_routes import Insight
from gateway.admin.key_routes import KeyAdministration
from gateway.admin.later import Later
from gateway.admin.owner_key import load_owner_key
from gateway.admin.policy_routes import PolicyAdministration
from gateway.admin.report_routes import Reporting, Verified
from gateway.admin.session import Sessions
from gateway.admin.sla_routes import Attainment
from gateway.admin.treasury import TreasuryBudgets
from gateway.changes import Changes
from gateway.hosting.quantised_prices import TokenSaving, token_savings
from gateway.learning.feedback import Feedback
from gateway.learning.router_learning import Learning
from gateway.parts.caching import Caching
from gateway.parts.ground import Ground
from gateway.parts.stores import Stores
from gateway.parts.upstreams import Upstreams
from gateway.reporting.decisions import Decisions
from gateway.reporting.sources import Machine
from gateway.settings.operator import Settings
from gateway.telemetry.log_reader import LogReader
from gateway.whatif.candidate_policies import CandidatePolicies
from gateway.whatif.live import WhatIf
from policies.access import AdminAuthenticator
from policies.audit import AuditLog
from policies.keys import KeyStore
from policies.keys_sqlite import SqliteKeyStore
from policies.loading import PolicySet


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin listener's application, and what closes its files."""

    app: Later
    close: Callable[[], None]
    changes: Changes


def build_admin(
    ground: Ground,
    stores: Stores,
    caching: Caching,
    upstreams: Upstreams,
    learning: Learning,
    feedback: Feedback,
    decisions: Decisions,
    exposition: Callable[[], tuple[bytes, str]],
) -> Admin:
    """Build the admin listener; `exposition` returns the metrics and their content type.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    settings, clock, policies = ground.settings, ground.clock, ground.policies
    files = ExitStack()
    changes = _changes(ground, files)
    keys = _store_for_threads(settings, stores.keys, files)
    authenticator = _authenticator(ground, stores.keys)
    budgets = TreasuryBudgets(stores.treasury, policies)
    requests = settings.beside("requests")
    insight = Insight(LogReader(requests), clock, upstreams.registry)
    api = AdminApi(
        authenticator=authenticator,
        keys=KeyAdministration(keys, ground.pepper, clock, policies, tuple(settings.tiers), changes),
        policies=_policy_administration(ground, upstreams.registry, changes),
        budgets=BudgetAdministration(budgets, policies, changes),
        cache=CacheAdministration(caching.control, policies, changes, caching.save),
        feedback=feedback,
        engines=EngineAdministration(upstreams.hosting, changes),
        learning=learning,
        decisions=decisions,
        changes=changes,
        reporting=Reporting(
            requests,
            _machine(settings, upstreams),
            policies,
            budgets.balances,
            _verified(caching.cache, policies),
            clock,
        ),
        insight=insight,
        attainment=Attainment(insight, policies),
        dashboard=Dashboard(load_assets(), Sessions(ground.pepper, clock), authenticator),
        probe=stores.probe(keys, ground.watcher),
        exposition=exposition,
    )
    return Admin(Later(lambda: admin_app(api)), files.close, changes)


def _changes(ground: Ground, files: ExitStack) -> Changes:
    """Open the record of changes."""
    log = AuditLog(ground.settings.beside("audit"), ground.pepper, ground.clock)
    files.callback(log.close)
    return Changes(log)


def _authenticator(ground: Ground, keys: KeyStore) -> AdminAuthenticator:
    owner_key = load_owner_key(ground.settings.admin_key_file)
    return AdminAuthenticator(owner_key, keys, ground.pepper, ground.clock, ground.failures)


def _policy_administration(ground: Ground, registry: Registry, changes: Changes) -> PolicyAdministration:
    settings = ground.settings
    candidates = CandidatePolicies(settings.policies, settings.known, settings.environment)
    what_if = WhatIf(settings.beside("requests"), settings.beside("decisions"), registry.snapshot, ground.clock)
    return PolicyAdministration(ground.policies, ground.watcher.reload, candidates, changes, what_if)


def _machine(settings: Settings, upstreams: Upstreams) -> Machine:
    """Return what reports need to know of the machine beside the log."""
    recipes = upstreams.hosting.recipes

    def savings() -> dict[str, TokenSaving | str]:
        prices = {name: upstreams.registry[name].price for name in recipes}
        return token_savings(recipes, prices, settings.state_file.parent)

    hourly = settings.telemetry.machine_hourly_usd
    said = hourly or next((one.hourly_usd for one in recipes.values() if one.hourly_usd is not None), None)
    return Machine(settings.beside("engine-hours"), said, frozenset(recipes), savings)


def _verified(cache: SemanticCache, policies: Callable[[], PolicySet]) -> Verified:
    """Return what tells of a tenant's judged hits: how many, how many were wrong, and the bound on wrong ones."""

    def tell(tenant: str) -> tuple[int, int, float] | None:
        rates = {name: policy.cache.max_false_hit_rate for name, policy in policies().policies.items()}
        found = (one for one in cache.evidence.reports(rates, frozenset()) if one.tenant == tenant)
        return next(((one.judged, one.wrong, one.bound) for one in found if one.requests), None)

    return tell


def _store_for_threads(settings: Settings, keys: KeyStore, files: ExitStack) -> KeyStore:
    """Return a store that threads may use: SQLite gets a connection of its own, Redis shares its pool."""
    if not isinstance(keys, SqliteKeyStore):
        return keys
    own = SqliteKeyStore(settings.state_file)
    files.callback(own.close)
    return own
