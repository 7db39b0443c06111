"""The operator's file `headgate.yaml`, parsed into a valid value: what is wrong is one line, before anything starts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from backends.rescue_budget import RescueRules
from core.errors import ConfigurationError
from gateway.settings.alerting import AlertsEntry, AlertWebhook, alert_webhook
from gateway.settings.cache_settings import CacheSettings, CacheStateEntry, cache_settings
from gateway.settings.deployments import (
    DeploymentEntry,
    DeploymentSettings,
    RemoteDeployment,
    parse_deployments,
    parse_tiers,
    remote_prices,
)
from gateway.settings.environment import listed_variables, refuse_secrets
from gateway.settings.listening import ADDRESS, Address, CorsEntry, Edge, TlsEntry, parse_address, parse_edge
from gateway.settings.price_files import referred_table
from gateway.settings.rescuing import RescueEntry, rescue_rules
from gateway.settings.route_map import checked_routes
from gateway.settings.state import DEFAULT_STATE, redis_url, state_path
from gateway.settings.telemetry_settings import TelemetryEntry, TelemetrySettings, telemetry_settings
from gateway.settings.workers import Worker, Workers, refuse_workers
from policies.identity_provider import OidcEntry
from policies.loading import Known, PolicySet, load_policies
from policies.safe_yaml import parse_document, parse_yaml, read_text
from policies.schema import convert, says

Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
Replicas = Annotated[int, Meta(ge=1, le=1_000)]
Heartbeat = Annotated[float, Meta(ge=0, le=3_600)]
HEARTBEAT_S = 15.0
Waiting = Annotated[int, Meta(ge=0, le=100_000)]


class AdminEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """The admin listener."""

    listen: Annotated[str, says("Address of the admin listener: HOST:PORT or unix:PATH.")] = "127.0.0.1:8081"
    tls: Annotated[TlsEntry | None, says("Certificate of the admin listener; plain HTTP without one.")] = None
    key_file: Annotated[str, says("File of the admin key, made on first start.")] = "var/admin.key"


class RouterEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Which pair of models the complexity weights belong to."""

    pair: Annotated[str, says("Weight set of the complexity router.")] = "bundled"


class OperatorFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The operator's file: what listens, where state lies, which tiers exist and who serves them."""

    tiers: Annotated[dict[str, list[str]], says("Tier name to deployments, cheapest tier first.")]
    deployments: Annotated[dict[str, DeploymentEntry], says("Deployments by name.")]
    listen: Annotated[str, says("Address of the public listener: HOST:PORT or unix:PATH.")] = ADDRESS
    tls: Annotated[TlsEntry | None, says("Certificate of the public listener; plain HTTP without one.")] = None
    admin: Annotated[AdminEntry, says("The admin listener.")] = AdminEntry()
    state: Annotated[str, says("Budgets, limits, keys, cache: sqlite:PATH or redis://HOST:PORT/DB.")] = DEFAULT_STATE
    replicas: Annotated[Replicas, says("How many gateways share the state; divides limits while Redis is away.")] = 1
    workers: Annotated[Workers, says("Processes that serve the public listener; several need Redis as `state`.")] = 1
    policies: Annotated[str, says("Folder of the tenants' files.")] = "policies/tenants"
    prices: Annotated[str | None, says("A price file of your own, which lies over the shipped price table.")] = None
    environment: Annotated[list[str], says("Variables that `${NAME}` in this and the tenants' files may use.")] = (
        msgspec.field(default_factory=list)
    )
    alerts: Annotated[AlertsEntry | None, says("Where budget alerts are sent.")] = None
    max_waiting: Annotated[Waiting, says("Requests that wait for busy deployments; more are answered 503.")] = 1_000
    rescue: Annotated[RescueEntry, says("Retries and hedges.")] = RescueEntry()
    router: Annotated[RouterEntry, says("The complexity router.")] = RouterEntry()
    telemetry: Annotated[TelemetryEntry, says("Logs and spans.")] = TelemetryEntry()
    cache: Annotated[CacheStateEntry, says("How the cache keeps entries, for all tenants.")] = CacheStateEntry()
    oidc: Annotated[OidcEntry | None, says("An identity provider whose tokens are accepted beside keys.")] = None
    routes: Annotated[
        dict[str, str], says("Further `/v1/` paths, each to the remote deployment that answers it at a flat price.")
    ] = msgspec.field(default_factory=dict)
    trusted_proxies: Annotated[
        list[str], says("Addresses or networks whose X-Forwarded-For is believed; `unix`: who comes by Unix socket.")
    ] = msgspec.field(default_factory=list)
    cors: Annotated[CorsEntry | None, says("Pages of other origins that may call from a browser; none without.")] = None
    heartbeat_s: Annotated[
        Heartbeat,
        says("A stream that is silent for so long gets a comment, to keep proxies from closing it; 0: never."),
    ] = HEARTBEAT_S
    max_body_bytes: Annotated[Bytes, says("Larger request bodies are answered 413.")] = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's choices with every path absolute; tiers are cheapest first."""

    file: Path
    listen: Address
    admin_listen: Address
    admin_key_file: Path
    state_file: Path
    policies: Path
    tiers: Mapping[str, tuple[str, ...]]
    deployments: Mapping[str, DeploymentSettings]
    pair: str
    telemetry: TelemetrySettings
    max_body_bytes: int
    oidc: OidcEntry | None = None
    redis_url: str | None = field(default=None, repr=False)
    replicas: int = 1
    prices_file: Path | None = None
    environment: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    alert_webhook: AlertWebhook | None = None
    cache: CacheSettings = field(default_factory=CacheSettings)
    routes: Mapping[str, str] = field(default_factory=dict)
    max_waiting: int = 1_000
    rescue: RescueRules = field(default_factory=RescueRules)
    edge: Edge = field(default_factory=Edge)
    heartbeat_s: float = HEARTBEAT_S
    workers: int = 1
    worker: Worker = field(default_factory=Worker)

    @property
    def known(self) -> Known:
        """Return the names that policies may use."""
        return Known(tuple(self.tiers), frozenset(self.deployments))

    @property
    def passed_request_headers(self) -> frozenset[bytes]:
        """Return the callers' headers that any deployment may be given."""
        remote = (one for one in self.deployments.values() if isinstance(one, RemoteDeployment))
        return frozenset(name.encode() for one in remote for name in one.passed.request)

    @property
    def pepper_file(self) -> Path:
        """Return the file of the secret that key hashes and cache keys are made with."""
        return self.state_file.with_name("pepper.key")

    def beside(self, what: str) -> Path:
        """Return a further state file, such as `headgate-cache.db` beside `headgate.db`."""
        return self.state_file.with_name(f"{self.state_file.stem}-{what}{self.state_file.suffix}")

    def own(self, what: str) -> Path:
        """Return a state file of this process alone: of several workers, the first has the plain name."""
        return self.beside(what if self.worker.is_first else f"{what}-{self.worker.number}")

    def worker_socket(self, number: int) -> Path:
        """Return the socket on which a worker talks to the others."""
        return self.state_file.with_name(f"worker-{number}.sock")


def load_settings(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the operator's file; relative paths in it start at its own folder.

    Args:
        path: the file.
        environ: the environment, of which only the variables listed under `environment` are used.

    Raises:
        ConfigurationError: the first thing that cannot be used, with file, key and mend.
    """
    file, text = str(path), read_text(path)
    variables = listed_variables(parse_yaml(text, file), file, environ)
    raw = parse_document(text, file, variables).content
    if not isinstance(raw, dict):
        raise ConfigurationError(file, "", "not a mapping of keys to values", "run `headgate init` for an example")
    written = convert(raw, OperatorFile, file)
    refuse_secrets(written.environment, _secrets(written), file)
    base = path.resolve().parent
    prices_file = None if written.prices is None else base / written.prices
    table = referred_table([entry.price for entry in written.deployments.values()], prices_file)
    refuse_workers(written.workers, redis_url(written.state), file)
    state_file = base / state_path(written.state, file)
    deployments = parse_deployments(written.deployments, file, table, state_file.parent)
    return Settings(
        file=path,
        listen=parse_address(written.listen, file, "listen", base, written.tls),
        admin_listen=parse_address(written.admin.listen, file, "admin.listen", base, written.admin.tls),
        admin_key_file=base / written.admin.key_file,
        state_file=state_file,
        redis_url=redis_url(written.state),
        replicas=written.replicas,
        policies=base / written.policies,
        tiers=parse_tiers(written.tiers, written.deployments, file),
        deployments=deployments,
        pair=written.router.pair,
        telemetry=telemetry_settings(written.telemetry, file, environ),
        max_body_bytes=written.max_body_bytes,
        oidc=written.oidc,
        prices_file=prices_file,
        environment=MappingProxyType(variables),
        alert_webhook=alert_webhook(written.alerts, file),
        cache=cache_settings(written.cache, file, base, state_file.parent),
        routes=checked_routes(written.routes, remote_prices(deployments), file),
        max_waiting=written.max_waiting,
        rescue=rescue_rules(written.rescue),
        edge=parse_edge(written.trusted_proxies, written.cors, file),
        heartbeat_s=written.heartbeat_s,
        workers=written.workers,
    )


def load_policy_set(settings: Settings) -> PolicySet:
    """Read the tenants' policies against the tiers and deployments of `settings`."""
    return load_policies(settings.policies, settings.known, settings.environment)


def on_ports(settings: Settings, port: int | None, admin_port: int | None) -> Settings:
    """Return the settings with other ports, as the command line asked."""
    public = settings.listen if port is None else replace(settings.listen, port=port)
    admin = settings.admin_listen if admin_port is None else replace(settings.admin_listen, port=admin_port)
    return replace(settings, listen=public, admin_listen=admin)


def with_workers(settings: Settings, workers: int | None) -> Settings:
    """Return the settings with another number of workers, as the command line asked.

    Raises:
        ConfigurationError: there cannot be so many.
    """
    if workers is None:
        return settings
    refuse_workers(workers, settings.redis_url, str(settings.file))
    return replace(settings, workers=workers)


def as_worker(settings: Settings, number: int) -> Settings:
    """Return what one of several workers goes by: of limits that hold for the whole gateway, its share."""
    worker = Worker(number, settings.workers)
    return replace(
        settings,
        worker=worker,
        replicas=settings.replicas * worker.count,
        max_waiting=worker.share(settings.max_waiting),
        deployments={name: worker.share_of(one) for name, one in settings.deployments.items()},
    )


def _secrets(written: OperatorFile) -> set[str | None]:
    """Return the variables that hold keys of others."""
    webhook = None if written.alerts is None else written.alerts.webhook_key_env
    return {webhook, *(entry.api_key_env for entry in written.deployments.values())}
