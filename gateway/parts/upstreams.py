"""Join where answers come from: engines of ours, remote servers and the encoder, and what carries out plans on them."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b

from backends.admission_queue import AdmissionQueue, ShedReason
from backends.deployment import Deployment
from backends.dispatch import Dispatcher
from backends.gate import Gate
from backends.registry import Registry
from backends.remote import RemoteBackend
from backends.remote_watch import RemoteWatch
from backends.transport import http_transport
from cache.embedder import Embedder
from core.clock import Clock
from core.errors import ConfigurationError
from core.trace_context import Propagation
from gateway.hosting.deployments import Hosting
from gateway.parts.ground import Ground
from gateway.parts.local_encoder import encoder_deployment
from gateway.settings.deployments import EncoderDeployment, HostedDeployment, RemoteDeployment
from gateway.settings.operator import Settings

OnShed = Callable[[ShedReason], None]


@dataclass(frozen=True, slots=True)
class Upstreams:
    """Every deployment that the operator's file names, the engines behind some of them, and the dispatcher over all."""

    hosting: Hosting
    watch: RemoteWatch
    registry: Registry
    dispatcher: Dispatcher


def build_upstreams(ground: Ground, hosting: Hosting, embedder: Embedder, on_shed: OnShed) -> Upstreams:
    """Make a deployment of every entry, and one queue for all of them, which tells `on_shed` whom it refuses.

    Raises:
        ConfigurationError: a provider's key is not set.
    """
    settings, clock = ground.settings, ground.clock
    registry = Registry(_deployments(ground, hosting, embedder), settings.tiers, clock)
    queue = AdmissionQueue(
        {one.name: one.gate for one in registry}.__getitem__,
        clock,
        max_waiting=settings.max_waiting,
        on_shed=on_shed,
        engine_wait_s=registry.engine_wait_s,
    )
    remote = (one for one in settings.deployments.values() if isinstance(one, RemoteDeployment))
    watch = RemoteWatch({one.name: one.metrics_url for one in remote if one.metrics_url is not None})
    propagation = Propagation(settings.telemetry.sample_ratio if settings.telemetry.exports else None)
    dispatcher = Dispatcher(registry, clock, settings.rescue, queue=queue, propagation=propagation)
    return Upstreams(hosting, watch, registry, dispatcher)


def _deployments(ground: Ground, hosting: Hosting, embedder: Embedder) -> dict[str, Deployment]:
    """Return the deployments by name; prefixes are salted by tenant where a deployment keeps them apart by that."""

    def salt(tenant: str) -> str:
        return blake2b(tenant.encode(), key=ground.pepper, digest_size=16, person=b"prefixes").hexdigest()

    deployments = {}
    for name, deployment in ground.settings.deployments.items():
        match deployment:
            case HostedDeployment():
                deployments[name] = hosting.deployment(deployment, salt)
            case RemoteDeployment():
                deployments[name] = _remote(deployment, ground.settings, ground.clock, salt)
            case EncoderDeployment():
                deployments[name] = encoder_deployment(deployment, embedder)
    return deployments


def _remote(deployment: RemoteDeployment, settings: Settings, clock: Clock, salt: Callable[[str], str]) -> Deployment:
    api_key = _api_key(deployment, settings)
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


def _api_key(deployment: RemoteDeployment, settings: Settings) -> str | None:
    if deployment.api_key_env is None:
        return None
    api_key = os.environ.get(deployment.api_key_env)
    if not api_key:
        key = f"deployments.{deployment.name}.api_key_env"
        mend = "export it, or remove the key from the file"
        raise ConfigurationError(str(settings.file), key, f"{deployment.api_key_env} is not set", mend)
    return api_key
