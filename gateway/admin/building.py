"""Join what the admin listener needs: the audit log, a key store for its threads, and the gateway's own parts."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from litestar import Litestar

from backends.registry import Registry
from cache.control import CacheControl
from core.clock import Clock
from gateway.admin.api import AdminApi, admin_app
from gateway.admin.budget_routes import BudgetAdministration
from gateway.admin.cache_routes import CacheAdministration
from gateway.admin.changes import Changes
from gateway.admin.dashboard_routes import Dashboard, load_assets
from gateway.admin.engine_routes import EngineAdministration
from gateway.admin.insight_routes import Insight
from gateway.admin.key_routes import KeyAdministration
from gateway.admin.policy_routes import PolicyAdministration
from gateway.admin.report_routes import Reporting, Verified
from gateway.admin.session import Sessions
from gateway.admin.sla_routes import Attainment
from gateway.admin.state_routes import StoreProbe
from gateway.admin.treasury import TreasuryBudgets
from gateway.hosting.deployments import Hosting
from gateway.learning.feedback import Feedback
from gateway.learning.router_learning import Learning
from gateway.reporting.decisions import Decisions
from gateway.settings.operator import Settings
from gateway.telemetry.log_reader import LogReader
from gateway.whatif.candidate_policies import CandidatePolicies
from gateway.whatif.live import WhatIf
from policies.access import AdminAuthenticator
from policies.audit import AuditLog
from policies.failures import FailureLimiter
from policies.keys import KeyStore
from policies.keys_sqlite import SqliteKeyStore
from policies.ledger import Treasury
from policies.watching import PolicyWatcher


@dataclass(frozen=True, slots=True)
class Admin:
    """The admin listener's application, and what closes its files."""

    app: Litestar
    close: Callable[[], None]
    changes: Changes


def build_admin(
    settings: Settings,
    *,
    owner_key: str,
    keys: KeyStore,
    pepper: bytes,
    clock: Clock,
    failures: FailureLimiter,
    watcher: PolicyWatcher,
    treasury: Treasury,
    cache: CacheControl,
    save_evidence: Callable[[], None],
    feedback: Feedback,
    registry: Registry,
    hosting: Hosting,
    learning: Learning,
    decisions: Decisions,
    probe: Callable[[KeyStore], StoreProbe],
    exposition: Callable[[], tuple[bytes, str]],
) -> Admin:
    """Build the admin listener.

    Args:
        settings: the operator's choices.
        owner_key: content of the key file.
        keys: the gateway's key store, read on the event loop.
        pepper: the secret of key hashes.
        clock: where the time comes from.
        failures: wrong keys by address, shared with the public listener.
        watcher: the policies in force.
        treasury: the ledger.
        cache: the cache under control.
        save_evidence: writes what the cache learned.
        feedback: takes users' words on answers.
        registry: the deployments and their state.
        hosting: the engines.
        learning: what the router learned.
        decisions: the decision records.
        probe: makes what asks whether the stores answer, of a key store that threads may use.
        exposition: returns the metrics and their content type.

    Raises:
        ConfigurationError: a file cannot be used.
    """
    files = ExitStack()
    log = AuditLog(settings.beside("audit"), pepper, clock)
    files.callback(log.close)
    changes = Changes(log)
    changing = _store_for_threads(settings, keys, files)
    candidates = CandidatePolicies(settings.policies, settings.known, settings.environment)
    budgets = TreasuryBudgets(treasury, lambda: watcher.current)
    authenticator = AdminAuthenticator(owner_key, keys, pepper, clock, failures)
    insight = Insight(LogReader(settings.beside("requests")), clock, registry)
    api = AdminApi(
        authenticator=authenticator,
        keys=KeyAdministration(changing, pepper, clock, lambda: watcher.current, tuple(settings.tiers), changes),
        policies=PolicyAdministration(
            lambda: watcher.current,
            watcher.reload,
            candidates,
            changes,
            WhatIf(settings.beside("requests"), settings.beside("decisions"), registry.snapshot, clock),
        ),
        budgets=BudgetAdministration(budgets, lambda: watcher.current, changes),
        cache=CacheAdministration(cache, lambda: watcher.current, changes, save_evidence),
        feedback=feedback,
        engines=EngineAdministration(hosting, changes),
        learning=learning,
        decisions=decisions,
        changes=changes,
        reporting=Reporting(
            settings.beside("requests"), lambda: watcher.current, budgets.balances, _verified(cache, watcher), clock
        ),
        insight=insight,
        attainment=Attainment(insight, lambda: watcher.current),
        dashboard=Dashboard(load_assets(), Sessions(pepper, clock), authenticator),
        probe=probe(changing),
        exposition=exposition,
    )
    return Admin(admin_app(api), files.close, changes)


def _verified(cache: CacheControl, watcher: PolicyWatcher) -> Verified:
    """Return what tells of a tenant's judged hits: how many, how many were wrong, and the bound on wrong ones."""

    def tell(tenant: str) -> tuple[int, int, float] | None:
        rates = {name: policy.cache.max_false_hit_rate for name, policy in watcher.current.policies.items()}
        found = (one for one in cache.cache.evidence.reports(rates, frozenset()) if one.tenant == tenant)
        return next(((one.judged, one.wrong, one.bound) for one in found if one.requests), None)

    return tell


def _store_for_threads(settings: Settings, keys: KeyStore, files: ExitStack) -> KeyStore:
    """Return a store that threads may use: SQLite gets a connection of its own, Redis shares its pool."""
    if not isinstance(keys, SqliteKeyStore):
        return keys
    own = SqliteKeyStore(settings.state_file)
    files.callback(own.close)
    return own
