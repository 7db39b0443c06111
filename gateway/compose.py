"""The composition root: joins the parts, which their own modules build, into a gateway."""

from typing import TYPE_CHECKING

from backends.dispatch import Dispatcher
from cache.faiss_index import FaissIndex
from cache.minilm import load_minilm
from cache.semantic_cache import SemanticCache
from cache.shadow import AnswerComparison, Shadow
from cache.single_flight import SingleFlight
from gateway.admin.building import build_admin
from gateway.holdout import Holdout
from gateway.hosting.deployments import build_hosting
from gateway.learning.asking import Asking, hit_check
from gateway.learning.building import Judging, build_judging
from gateway.learning.feedback import Feedback, Owners
from gateway.parts.alerts import Alerts
from gateway.parts.cache_index import place_index, refuse_two_faiss
from gateway.parts.caching import build_caching
from gateway.parts.ground import Ground, open_ground
from gateway.parts.monitoring import Monitoring, build_metrics, build_monitoring
from gateway.parts.records import Records, open_records
from gateway.parts.sqlite_stores import open_sqlite
from gateway.parts.stores import Stores
from gateway.parts.upstreams import Upstreams, build_upstreams
from gateway.pipeline import Pipeline
from gateway.receipts import Receipts
from gateway.reporting.decisions import Decisions
from gateway.running import Gateway
from gateway.settings.operator import Settings
from gateway.telemetry.metrics import Metrics
from gateway.wire.public_api import PublicApi, public_app
from gateway.workers.private import Exposition, exposition_of_all
from policies.access import Access, Authenticator
from policies.ledger import OnAlert
from router.complexity import PairModel
from router.sessions import SessionBook

if TYPE_CHECKING:
    from policies.tokens import TokenVerifier


def build(settings: Settings) -> Gateway:
    """Join everything that `settings` names; nothing runs yet, and nothing is loaded that a refusal would waste.

    Raises:
        ConfigurationError: the first thing that cannot be used.
    """
    refuse_two_faiss()
    ground = open_ground(settings)
    clock, metrics = ground.clock, build_metrics(ground.watcher)
    hosting = build_hosting(settings, clock, ground.has_one_tenant)
    embedder, placed = load_minilm(start=False), place_index(settings.cache.gpu)
    upstreams = build_upstreams(ground, hosting, embedder, metrics.shed)
    alerts = Alerts(metrics, settings.alert_webhook)
    stores = _stores(ground, placed.index, embedder.fingerprint, alerts)
    caching = build_caching(ground, stores, embedder, placed)
    classifier = PairModel.load(settings.pair, embedder.fingerprint)
    records = open_records(settings, metrics, hosting.costs, classifier.version)
    asking = Asking(stores.ledger, upstreams.dispatcher, records.traces, clock, stores.is_away)
    caching.cache.verification.shadow = Shadow(hit_check(asking), AnswerComparison(embedder))
    judging = build_judging(ground, classifier, asking, embedder)
    sinks = (records.outcomes, judging.learning)
    feedback = Feedback(Owners(), records.requests.tenant_of, caching.cache, sinks, clock)
    pipeline = _pipeline(ground, stores, caching.cache, upstreams.dispatcher, judging, records, feedback.owners)
    tokens = _token_verifier(ground)
    api = _public(ground, stores, upstreams, metrics, pipeline, tokens, feedback)
    monitoring = build_monitoring(ground, metrics, upstreams, stores, records, lambda: api.readiness()[1])
    decisions = Decisions(records.receipts, settings.beside("requests"), ground.policies, upstreams.registry.snapshot)
    exposition = _exposition(settings, monitoring)
    admin = build_admin(ground, stores, caching, upstreams, judging.learning, feedback, decisions, exposition)
    embedder.start()  # last: until the gateway listens, loading would only be in its way
    return Gateway(
        ground=ground,
        upstreams=upstreams,
        stores=stores,
        caching=caching,
        records=records,
        asking=asking,
        judging=judging,
        tokens=tokens,
        api=api,
        monitoring=monitoring,
        public=public_app(api, cors=settings.edge.cors),
        admin=admin,
    )


def _stores(ground: Ground, index: FaissIndex, encoder: str, on_alert: OnAlert) -> Stores:
    """Open what `state` names; the client of Redis is loaded only where it is wanted."""
    settings, clock = ground.settings, ground.clock
    if settings.redis_url is None:
        return open_sqlite(settings, clock, on_alert)
    from gateway.parts.redis_stores import open_redis

    return open_redis(settings, settings.redis_url, clock, index, encoder, on_alert)


def _pipeline(
    ground: Ground,
    stores: Stores,
    cache: SemanticCache,
    dispatcher: Dispatcher,
    judging: Judging,
    records: Records,
    owners: Owners,
) -> Pipeline:
    """Return the path of one request."""
    return Pipeline(
        policies=ground.policies,
        admission=stores.admission,
        ledger=stores.ledger,
        cache=cache,
        classifier=judging.classifier,
        calibrated=judging.calibrations.applied,
        dispatcher=dispatcher,
        sink=records.traces,
        clock=ground.clock,
        tiers=tuple(ground.settings.tiers),
        store_is_away=stores.is_away,
        flights=SingleFlight(),
        owners=owners,
        control=judging.control,
        sessions=SessionBook(ground.pepper, ground.clock),
        receipts=Receipts(records.receipts, ground.pepper),
        holdout=Holdout(ground.pepper),
        learning=judging.learning,
    )


def _public(
    ground: Ground,
    stores: Stores,
    upstreams: Upstreams,
    metrics: Metrics,
    pipeline: Pipeline,
    tokens: "TokenVerifier | None",
    feedback: Feedback,
) -> PublicApi:
    """Return what the public routes need."""
    settings, clock = ground.settings, ground.clock
    keys = Authenticator(stores.keys, ground.pepper, clock, ground.failures)
    return PublicApi(
        pipeline=pipeline,
        authenticator=Access(keys, tokens),
        policies=ground.policies,
        registry=upstreams.registry,
        metrics=metrics,
        clock=clock,
        max_body_bytes=settings.max_body_bytes,
        feedback=feedback,
        routes=settings.routes,
        failing=upstreams.hosting.failing,
        heartbeat_s=settings.heartbeat_s,
        passed=settings.passed_request_headers,
    )


def _exposition(settings: Settings, monitoring: Monitoring) -> Exposition:
    """Return what makes the page of `/metrics`, that of all workers where there are several."""
    if settings.workers == 1:
        return monitoring.exposition
    return exposition_of_all(monitoring.exposition, map(settings.worker_socket, range(1, settings.workers)))


def _token_verifier(ground: Ground) -> "TokenVerifier | None":
    """Return what checks an identity provider's tokens, where the operator names one."""
    settings = ground.settings
    if settings.oidc is None:
        return None
    from policies.tokens import token_verifier

    return token_verifier(
        settings.oidc, settings.file.resolve().parent, str(settings.file), ground.clock, ground.failures
    )
