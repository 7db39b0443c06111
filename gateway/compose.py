"""The composition root: the only place that builds adapters and joins them into a gateway."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from litestar import Litestar

from backends.dispatch import Dispatcher
from backends.registry import Deployment, Registry
from backends.remote import RemoteBackend, http_transport
from cache.embedder import Embedder
from cache.faiss_index import FaissIndex
from cache.fingerprint import Fingerprinter
from cache.guard import Guard
from cache.minilm import bundled_lexicon, load_minilm
from cache.semantic_cache import SemanticCache
from cache.sqlite_store import SqliteEntryStore
from core.clock import Clock, SystemClock
from core.errors import ConfigurationError
from core.plan import Readiness
from core.trace import TraceSink
from gateway.admin.building import build_admin
from gateway.admin.probing import sqlite_probe
from gateway.hosting import Hosting, build_hosting
from gateway.pipeline import Pipeline
from gateway.public_api import PublicApi, public_app
from gateway.settings import HostedDeployment, RemoteDeployment, Settings
from gateway.telemetry.fan_out import FanOut
from gateway.telemetry.log_line import LogLine
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.request_log import RequestLog
from policies.access import Access, Authenticator
from policies.admission import Admission
from policies.failures import FailureLimiter
from policies.keys import create_key
from policies.keys_sqlite import SqliteKeyStore
from policies.ledger_sqlite import SqliteLedger
from policies.loading import PolicySet
from policies.pepper import load_pepper
from policies.reservation import drain
from policies.tokens import TokenVerifier
from policies.watching import PolicyWatcher
from router.complexity import PairModel

logger = logging.getLogger("headgate.compose")
REAP_EVERY_S = 10.0
POLL_S = 0.1
SETTLE_S = 5.0
DEMO_KEY_LIFE = timedelta(hours=24)
DEMO_TENANTS = ("demo", "demo-tiny")


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that is built and not yet running."""

    public: Litestar
    admin: Litestar
    registry: Registry
    hosting: Hosting
    cache: SemanticCache
    embedder: Embedder
    ledger: SqliteLedger
    keys: SqliteKeyStore
    pepper: bytes
    clock: Clock
    watcher: PolicyWatcher
    tokens: TokenVerifier | None
    api: PublicApi
    close_sinks: Callable[[], None]
    close_admin: Callable[[], None]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start engines and background work; on the way out settle, flush and stop everything, in that order."""
        async with AsyncExitStack() as stack:
            stack.callback(self.close_sinks)
            stack.callback(self.close_admin)
            stack.callback(self.keys.close)
            stack.callback(self.ledger.close)
            stack.push_async_callback(self.cache.close)
            stack.push_async_callback(self.registry.close)
            await stack.enter_async_context(self.hosting.running())
            loops = (self._reap(), self.cache.load(), self.watcher.run())
            background = [asyncio.create_task(loop) for loop in loops]
            if self.tokens is not None:
                background.append(asyncio.create_task(self.tokens.run()))
            try:
                yield
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                late = await drain(SETTLE_S)
                if late:
                    logger.warning("settlements were not done in time; leases cover them", extra={"count": late})

    async def wait_ready(self, timeout_s: float) -> None:
        """Wait until every tier can answer and the encoder is loaded.

        Raises:
            TimeoutError: it took longer.
        """
        async with asyncio.timeout(timeout_s):
            while not (self.api.readiness()[0] and self.embedder.is_ready()):  # noqa: ASYNC110 - they have no common event
                await asyncio.sleep(POLL_S)

    def demo_keys(self) -> tuple[str, str]:
        """Create a day's keys for the two demonstration tenants.

        Raises:
            ConfigurationError: one of them has no policy.
        """
        keys = []
        for tenant in DEMO_TENANTS:
            if self.watcher.current.get(tenant) is None:
                mend = "run the demonstration with the example policies"
                raise ConfigurationError("policies", tenant, "the demonstration's tenant has no policy", mend)
            text, record = create_key(tenant, self.pepper, self.clock, expires_at=self.clock.now() + DEMO_KEY_LIFE)
            self.keys.put(record)
            keys.append(text)
        return keys[0], keys[1]

    async def _reap(self) -> None:
        while True:
            await asyncio.sleep(REAP_EVERY_S)
            reaped = await self.ledger.reap()
            if reaped:
                logger.warning("holds without settlement were charged in full", extra={"count": reaped})


def build(settings: Settings) -> Gateway:
    """Join everything that `settings` names; nothing runs yet, and nothing is loaded that a refusal would waste.

    Raises:
        ConfigurationError: the first thing that cannot be used.
    """
    refuse_two_faiss()
    clock = SystemClock()
    watcher = PolicyWatcher(settings.policies, settings.known, settings.environment)
    policies = watcher.current
    hosting = build_hosting(settings, clock, single_tenant=len(policies.tenants()) == 1)
    registry = _registry(settings, hosting, clock)
    settings.state_file.parent.mkdir(parents=True, exist_ok=True)
    pepper = load_pepper(settings.pepper_file)
    keys = SqliteKeyStore(settings.state_file)
    failures = FailureLimiter(clock)
    ledger = SqliteLedger(settings.state_file, clock)
    embedder = load_minilm()
    cache = SemanticCache(
        Fingerprinter(pepper),
        SqliteEntryStore(settings.beside("cache"), clock),
        FaissIndex(),
        embedder,
        clock,
        Guard(bundled_lexicon()),
    )
    metrics = _metrics(policies)
    sinks, close_sinks = _sinks(settings, metrics)
    pipeline = Pipeline(
        policies=lambda: watcher.current,
        admission=Admission(ledger, clock),
        ledger=ledger,
        cache=cache,
        classifier=PairModel.load(settings.pair, embedder.fingerprint),
        dispatcher=Dispatcher(registry, clock),
        sink=sinks,
        clock=clock,
    )
    tokens = None
    if settings.oidc is not None:
        from policies.tokens import token_verifier

        tokens = token_verifier(settings.oidc, settings.file.resolve().parent, str(settings.file), clock, failures)
    api = PublicApi(
        pipeline=pipeline,
        authenticator=Access(Authenticator(keys, pepper, clock, failures), tokens),
        policies=lambda: watcher.current,
        registry=registry,
        metrics=metrics,
        clock=clock,
        max_body_bytes=settings.max_body_bytes,
    )
    admin = build_admin(
        settings,
        owner_key=load_admin_key(settings.admin_key_file),
        keys=keys,
        pepper=pepper,
        clock=clock,
        failures=failures,
        watcher=watcher,
        treasury=ledger,
        probe=lambda store: sqlite_probe(store, lambda: ledger.is_failing, watcher),
        exposition=lambda: exposition(metrics, api),
    )
    return Gateway(
        public=public_app(api),
        admin=admin.app,
        registry=registry,
        hosting=hosting,
        cache=cache,
        embedder=embedder,
        ledger=ledger,
        keys=keys,
        pepper=pepper,
        clock=clock,
        watcher=watcher,
        tokens=tokens,
        api=api,
        close_sinks=close_sinks,
        close_admin=admin.close,
    )


def refuse_two_faiss() -> None:
    """Refuse to start with both FAISS distributions, which overwrite each other's module.

    Raises:
        ConfigurationError: both are installed.
    """
    if _installed("faiss-cpu") and _installed("faiss-gpu"):
        raise ConfigurationError(
            "environment", "faiss", "faiss-cpu and faiss-gpu are both installed", "uninstall one of them"
        )


def load_admin_key(path: Path) -> str:
    """Read the admin key, making one (mode 0600) on first use.

    Raises:
        ConfigurationError: the file cannot be read, written, or is too short to be a key.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"hga_{secrets.token_hex(32)}\n")
        key = path.read_text().strip()
    except OSError as problem:
        reason = problem.strerror or "cannot be used"
        raise ConfigurationError(str(path), "admin.key_file", reason, "check the path and its rights") from problem
    if len(key) < 32:
        raise ConfigurationError(
            str(path), "admin.key_file", "shorter than 32 characters", "remove it to get a new one"
        )
    return key


def exposition(metrics: Metrics, api: PublicApi) -> tuple[bytes, str]:
    """Return `/metrics` with the tiers' present readiness."""
    for tier, state in api.readiness()[1].items():
        metrics.tier_ready(tier, state == Readiness.READY)
    return metrics.exposition()


def _registry(settings: Settings, hosting: Hosting, clock: Clock) -> Registry:
    deployments = {}
    for name, deployment in settings.deployments.items():
        match deployment:
            case HostedDeployment():
                deployments[name] = hosting.deployment(deployment)
            case RemoteDeployment():
                deployments[name] = _remote(deployment, settings, clock)
    return Registry(deployments, settings.tiers, clock)


def _remote(deployment: RemoteDeployment, settings: Settings, clock: Clock) -> Deployment:
    api_key = None
    if deployment.api_key_env is not None:
        api_key = os.environ.get(deployment.api_key_env)
        if not api_key:
            key = f"deployments.{deployment.name}.api_key_env"
            mend = "export it, or remove the key from the file"
            raise ConfigurationError(str(settings.file), key, f"{deployment.api_key_env} is not set", mend)
    return Deployment(
        name=deployment.name,
        model=deployment.model,
        price=deployment.price,
        backend=RemoteBackend(lambda: deployment.base_url, http_transport(), clock, api_key),
        context_tokens=deployment.context_tokens,
        max_output_tokens=deployment.max_output_tokens,
    )


def _metrics(policies: PolicySet) -> Metrics:
    slas = [sla for policy in policies.policies.values() for sla in policy.sla.values()]
    bounds_s = {limit / 1000 for sla in slas for limit in (sla.ttft_ms, sla.total_ms) if limit is not None}
    return Metrics(policies.tenants(), bounds_s)


def _sinks(settings: Settings, metrics: Metrics) -> tuple[FanOut, Callable[[], None]]:
    """Return the sinks joined, and what closes them."""
    request_log = RequestLog(settings.beside("requests"))
    sinks: list[TraceSink] = [metrics, request_log, LogLine()]
    closers = [request_log.close]
    if settings.otlp_endpoint is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        from gateway.telemetry.spans import Spans

        spans = Spans(OTLPSpanExporter(endpoint=settings.otlp_endpoint))
        sinks.append(spans)
        closers.append(spans.close)

    def close() -> None:
        for closer in closers:
            closer()

    return FanOut(sinks), close


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
