"""The composition root: the only place that builds adapters and joins them into a gateway."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from hashlib import blake2b
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec
from litestar import Litestar

from backends.admission_queue import AdmissionQueue
from backends.deployment import Deployment
from backends.dispatch import Dispatcher
from backends.gate import Gate
from backends.registry import Registry
from backends.remote import RemoteBackend
from backends.rescue_budget import RescueRules
from backends.transport import http_transport
from cache.control import CacheControl
from cache.embedder import Embedder
from cache.evidence_file import load_evidence, save_evidence
from cache.faiss_index import FaissIndex
from cache.fingerprint import Fingerprinter
from cache.guard import Guard
from cache.minilm import bundled_lexicon, load_minilm
from cache.semantic_cache import SemanticCache
from cache.shadow import AnswerComparison, Shadow
from cache.single_flight import SingleFlight
from core.clock import Clock, SystemClock
from core.errors import ConfigurationError, HeadgateError
from gateway.admin.building import build_admin
from gateway.admin.changes import Changes
from gateway.alerts import Alerts
from gateway.cache_index import place_index
from gateway.holdout import Holdout
from gateway.hosting.deployments import Hosting, build_hosting
from gateway.learning.asking import Asking, hit_check
from gateway.learning.comparing import Comparing
from gateway.learning.control_file import load_control, save_control
from gateway.learning.feedback import Feedback, Owners
from gateway.learning.router_learning import Learning, exploring_secret, learning_file, load_learners
from gateway.learning.tenant_calibrations import TenantCalibrations, calibrations_file
from gateway.local_encoder import encoder_deployment
from gateway.monitoring import Monitoring, build_metrics, build_monitoring, build_sinks, propagation
from gateway.pipeline import Pipeline
from gateway.receipts import Receipts
from gateway.reporting.decisions import Decisions, program_version
from gateway.settings.operator import EncoderDeployment, HostedDeployment, RemoteDeployment, Settings
from gateway.stores import Stores, open_stores
from gateway.telemetry.outcome_log import OutcomeLog
from gateway.telemetry.receipt_log import ReceiptLog
from gateway.telemetry.request_log import RequestLog
from gateway.wire.public_api import PublicApi, public_app
from policies.access import Access, Authenticator
from policies.failures import FailureLimiter
from policies.keys import create_key
from policies.pepper import load_pepper
from policies.reservation import drain
from policies.tokens import TokenVerifier, token_verifier
from policies.watching import PolicyWatcher
from router.complexity import PairModel
from router.sessions import SessionBook

logger = logging.getLogger("headgate.compose")
REAP_EVERY_S = 10.0
SAVE_EVERY_S = 60.0
POLL_S = 0.1
SETTLE_S = 5.0
DEMO_KEY_LIFE = timedelta(hours=24)
DEMO_TENANTS = ("demo", "demo-tiny")


@dataclass(frozen=True, slots=True)
class Gateway:
    """A gateway that is built and not yet running."""

    settings: Settings
    public: Litestar
    admin: Litestar
    registry: Registry
    hosting: Hosting
    cache: SemanticCache
    embedder: Embedder
    stores: Stores
    pepper: bytes
    clock: Clock
    watcher: PolicyWatcher
    calibrations: TenantCalibrations
    tokens: TokenVerifier | None
    api: PublicApi
    asking: Asking
    monitoring: Monitoring
    learning: Learning
    changes: Changes
    save_evidence: Callable[[], None]
    closers: tuple[Callable[[], None], ...]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Start engines and background work; on the way out settle, flush and stop everything, in that order."""
        async with AsyncExitStack() as stack:
            for close in (self.save_evidence, *self.closers):
                stack.callback(close)
            stack.push_async_callback(self.stores.close)
            stack.push_async_callback(self.cache.close)
            stack.push_async_callback(self.registry.close)
            await stack.enter_async_context(self.hosting.running())
            await stack.enter_async_context(self.stores.running())
            background = [asyncio.create_task(_logged(name, work)) for name, work in self._background()]
            try:
                yield
            finally:
                for task in background:
                    task.cancel()
                await asyncio.gather(*background, return_exceptions=True)
                await self.learning.comparing.close()
                await self.asking.close()
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
            self.stores.keys.put(record)
            keys.append(text)
        return keys[0], keys[1]

    def _background(self) -> Iterator[tuple[str, Coroutine[object, object, object]]]:
        yield "reap", self._reap()
        if not self.stores.fills_index:
            yield "load cache", self.cache.load()
        yield "watch policies", self.watcher.run()
        yield "watch calibrations", self.calibrations.run()
        yield "probe deployments", self.registry.probe()
        yield "save evidence", self._save_evidence()
        yield "monitor", self.monitoring.run()
        yield "settle what was learned", self.learning.run(self.changes)
        if self.tokens is not None:
            yield "follow identity provider", self.tokens.run()

    async def _save_evidence(self) -> None:
        """Keep what the cache learned from time to time, so that a crash loses a minute of it at most."""
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            await asyncio.to_thread(self.save_evidence)

    async def _reap(self) -> None:
        """Close expired holds from time to time; a store that is away is tried again."""
        while True:
            await asyncio.sleep(REAP_EVERY_S)
            try:
                reaped = await self.stores.ledger.reap()
            except HeadgateError as problem:
                logger.warning("holds could not be reaped", extra={"problem": problem.message})
                continue
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
    hosting = build_hosting(settings, clock, lambda: len(watcher.current.policies) <= 1)
    embedder, placed = load_minilm(), place_index(settings.cache.gpu)
    settings.state_file.parent.mkdir(parents=True, exist_ok=True)
    pepper = load_pepper(settings.pepper_file)
    registry = _registry(settings, hosting, embedder, clock, pepper)
    failures = FailureLimiter(clock)
    metrics = build_metrics(watcher)
    stores = open_stores(settings, clock, placed.index, embedder.fingerprint, Alerts(metrics, settings.alert_webhook))
    cache, keep_evidence = _cache(settings, pepper, stores, placed.index, embedder, clock)
    request_log = RequestLog(settings.beside("requests"), settings.telemetry.rows)
    outcomes = OutcomeLog(settings.beside("requests"))
    sinks = build_sinks(settings.telemetry, metrics, request_log, hosting.costs)
    owners = Owners()
    queue = AdmissionQueue(
        lambda name: registry[name].gate, clock, max_waiting=settings.max_waiting, on_shed=metrics.shed
    )
    rules = RescueRules(**msgspec.structs.asdict(settings.rescue))
    dispatcher = Dispatcher(registry, clock, rules, queue=queue, propagation=propagation(settings.telemetry))
    asking = Asking(stores.ledger, dispatcher, sinks.all, clock, stores.is_away)
    cache.verification.shadow = Shadow(hit_check(asking), AnswerComparison(embedder))
    control_file = settings.beside("control").with_suffix(".json")
    control = load_control(control_file, clock, settings.replicas)
    classifier = PairModel.load(settings.pair, embedder.fingerprint)
    calibrations = TenantCalibrations(calibrations_file(settings), classifier.manifest)
    learners = load_learners(learning_file(settings), classifier.version)
    comparing = Comparing(asking, AnswerComparison(embedder), clock, learners.spent)
    secret = exploring_secret(pepper)
    learning = Learning(learners, comparing, lambda: watcher.current, clock, secret, learning_file(settings))
    feedback = Feedback(owners, request_log.tenant_of, cache, (outcomes, learning), clock)
    receipt_log = ReceiptLog(
        settings.beside("decisions"), classifier.version, program_version(), settings.telemetry.receipts
    )
    pipeline = Pipeline(
        policies=lambda: watcher.current,
        admission=stores.admission,
        ledger=stores.ledger,
        cache=cache,
        classifier=classifier,
        calibrated=calibrations.applied,
        dispatcher=dispatcher,
        sink=sinks.all,
        clock=clock,
        tiers=tuple(settings.tiers),
        store_is_away=stores.is_away,
        flights=SingleFlight(),
        owners=owners,
        control=control,
        sessions=SessionBook(pepper, clock),
        receipts=Receipts(receipt_log, pepper),
        holdout=Holdout(pepper),
        learning=learning,
    )
    tokens = _token_verifier(settings, clock, failures)
    api = PublicApi(
        pipeline=pipeline,
        authenticator=Access(Authenticator(stores.keys, pepper, clock, failures), tokens),
        policies=lambda: watcher.current,
        registry=registry,
        metrics=metrics,
        clock=clock,
        max_body_bytes=settings.max_body_bytes,
        feedback=feedback,
        routes=settings.routes,
        failing=hosting.failing,
        heartbeat_s=settings.heartbeat_s,
        passed=settings.passed_request_headers,
    )
    monitoring = build_monitoring(
        settings,
        metrics=metrics,
        watcher=watcher,
        registry=registry,
        hosting=hosting,
        stores=stores,
        queue=queue,
        clock=clock,
        sinks=sinks,
        receipts=receipt_log,
        readiness=lambda: api.readiness()[1],
    )
    admin = build_admin(
        settings,
        owner_key=load_admin_key(settings.admin_key_file),
        keys=stores.keys,
        pepper=pepper,
        clock=clock,
        failures=failures,
        watcher=watcher,
        treasury=stores.treasury,
        cache=CacheControl(cache, stores.entries, stores.catalogue, clock, stores.sealer, placed.place),
        save_evidence=keep_evidence,
        feedback=feedback,
        registry=registry,
        hosting=hosting,
        learning=learning,
        decisions=Decisions(receipt_log, settings.beside("requests"), lambda: watcher.current, registry.snapshot),
        probe=lambda keys: stores.probe(keys, watcher),
        exposition=monitoring.exposition,
    )
    return Gateway(
        settings=settings,
        public=public_app(api, cors=settings.edge.cors),
        admin=admin.app,
        registry=registry,
        hosting=hosting,
        cache=cache,
        embedder=embedder,
        stores=stores,
        pepper=pepper,
        clock=clock,
        watcher=watcher,
        calibrations=calibrations,
        tokens=tokens,
        api=api,
        asking=asking,
        monitoring=monitoring,
        learning=learning,
        changes=admin.changes,
        save_evidence=partial(_in_turn, keep_evidence, partial(save_control, control_file, control), learning.save),
        closers=(outcomes.close, sinks.close, receipt_log.close, admin.close),
    )


def _cache(
    settings: Settings, pepper: bytes, stores: Stores, index: FaissIndex, embedder: Embedder, clock: Clock
) -> tuple[SemanticCache, Callable[[], None]]:
    """Return the cache, and what keeps the evidence that it gathers."""
    guard = Guard(bundled_lexicon())
    file = settings.beside("cache-evidence").with_suffix(".json")
    evidence = load_evidence(file, guard.table, embedder.fingerprint)
    cache = SemanticCache(Fingerprinter(pepper), stores.entries, index, embedder, clock, guard, evidence)
    return cache, partial(save_evidence, file, evidence)


def _token_verifier(settings: Settings, clock: Clock, failures: FailureLimiter) -> TokenVerifier | None:
    if settings.oidc is None:
        return None
    return token_verifier(settings.oidc, settings.file.resolve().parent, str(settings.file), clock, failures)


def _in_turn(*calls: Callable[[], None]) -> None:
    for call in calls:
        call()


async def _logged(name: str, work: Coroutine[object, object, object]) -> None:
    """Run background work; its end by an error must not go unseen."""
    try:
        await work
    except Exception:
        logger.exception("background work ended", extra={"work": name})


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


def _registry(settings: Settings, hosting: Hosting, embedder: Embedder, clock: Clock, pepper: bytes) -> Registry:
    def salt(tenant: str) -> str:
        return blake2b(tenant.encode(), key=pepper, digest_size=16, person=b"prefixes").hexdigest()

    deployments = {}
    for name, deployment in settings.deployments.items():
        match deployment:
            case HostedDeployment():
                deployments[name] = hosting.deployment(deployment, salt)
            case RemoteDeployment():
                deployments[name] = _remote(deployment, settings, clock, salt)
            case EncoderDeployment():
                deployments[name] = encoder_deployment(deployment, embedder)
    return Registry(deployments, settings.tiers, clock)


def _remote(deployment: RemoteDeployment, settings: Settings, clock: Clock, salt: Callable[[str], str]) -> Deployment:
    api_key = None
    if deployment.api_key_env is not None:
        api_key = os.environ.get(deployment.api_key_env)
        if not api_key:
            key = f"deployments.{deployment.name}.api_key_env"
            mend = "export it, or remove the key from the file"
            raise ConfigurationError(str(settings.file), key, f"{deployment.api_key_env} is not set", mend)
    backend = RemoteBackend(lambda: deployment.base_url, http_transport(), clock, api_key, deployment.passed)
    generates = deployment.probe == "completion"
    return Deployment(
        name=deployment.name,
        model=deployment.model,
        price=deployment.price,
        backend=backend,
        probe=None if deployment.probe == "none" else partial(backend.answers, deployment.model, generates=generates),
        drain_s=deployment.drain_s,
        gate=Gate(deployment.max_concurrency),
        context_tokens=deployment.context_tokens,
        max_output_tokens=deployment.max_output_tokens,
        abilities=deployment.abilities,
        ask_usage=deployment.ask_usage,
        salt=salt if deployment.cache_salt else None,
        model_check=deployment.model_check,
        serves=deployment.serves.union(
            path.removeprefix("/v1") for path, name in settings.routes.items() if name == deployment.name
        ),
    )


def _installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True
