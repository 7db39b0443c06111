"""The operator's file `headgate.yaml`, parsed into a valid value: what is wrong is one line, before anything starts."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from backends.declared_abilities import UNDECLARED, DeclaredAbilities
from backends.engines.reload_plan import ReloadPlan
from backends.protocol import HeaderLists
from backends.served_model import ModelCheck
from core.endpoints import CHAT_ALONE, EMBEDDINGS
from core.errors import ConfigurationError
from core.money import Price
from core.plan import TEXT_ALONE, Abilities
from gateway.settings.cache_settings import CacheSettings, CacheStateEntry, cache_settings
from gateway.settings.listening import ADDRESS, Address, CorsEntry, Edge, TlsEntry, parse_address, parse_edge
from gateway.settings.measured_prices import measured_price
from gateway.settings.passed_headers import checked_headers
from gateway.settings.reload_settings import ReloadEntry, reload_plan
from gateway.settings.route_map import PATHS, checked_routes
from gateway.settings.telemetry_settings import TelemetryEntry, TelemetrySettings, telemetry_settings
from gateway.settings.urls import plain_url
from policies.loading import Known, PolicySet, load_policies
from policies.price_table import load_price_table
from policies.prices import MEASURED, TABLE, parse_price
from policies.safe_yaml import parse_document, parse_yaml, read_text
from policies.schema import convert, says
from policies.tokens import OidcEntry

DEFAULT_FILE = "headgate.yaml"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
Count = Annotated[int, Meta(ge=1, le=1_000)]
Heartbeat = Annotated[float, Meta(ge=0, le=3_600)]
HEARTBEAT_S = 15.0
DEFAULT_STATE = "sqlite:var/headgate.db"
Tokens = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=120)]
Wait = Annotated[float, Meta(gt=0, le=3_600)]
Waiting = Annotated[int, Meta(ge=0, le=100_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
Probe = Literal["models", "completion", "none"]
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class AdminEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """The admin listener."""

    listen: Annotated[str, says("Address of the admin listener: HOST:PORT or unix:PATH.")] = "127.0.0.1:8081"
    tls: Annotated[TlsEntry | None, says("Certificate of the admin listener; plain HTTP without one.")] = None
    key_file: Annotated[str, says("File of the admin key, made on first start.")] = "var/admin.key"


class DeploymentEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment: either a recipe that we host, or a remote server."""

    recipe: Annotated[str | None, says("Recipe of an engine that the gateway hosts.")] = None
    backend: Annotated[
        Literal["remote", "encoder"] | None,
        says("`remote`: an OpenAI-compatible server; `encoder`: the gateway's own MiniLM, for embeddings."),
    ] = None
    base_url: Annotated[str | None, says("Up to and with /v1; no credentials in it.")] = None
    model: Annotated[str | None, says("The model's name there.")] = None
    api_key_env: Annotated[str | None, says("The environment variable that holds the provider's key.")] = None
    price: Annotated[object, says("Figures, `table`, {table: NAME}, or `measured` with a recipe.")] = None
    region: Annotated[str | None, says("A note for people.")] = None
    ask_usage: Annotated[bool, says("Ask streams for usage; false where `stream_options` is refused.")] = True
    cache_salt: Annotated[bool, says("Send `cache_salt`, by which vLLM keeps tenants' prefixes apart.")] = False
    serves: Annotated[
        list[Literal["chat", "completions", "embeddings"]] | None,
        says("What a remote server answers: chat (the default), completions, embeddings."),
    ] = None
    request_headers: Annotated[list[str], says("Remote: headers of callers that pass to it.")] = []
    response_headers: Annotated[list[str], says("Remote: headers of its answers that pass to callers.")] = []
    served_as: Annotated[list[str], says("Remote: further names under which its model may answer.")] = []
    on_other_model: Annotated[
        Literal["flag", "error"], says("Remote: what it means when another model answers than was asked.")
    ] = "flag"
    probe: Annotated[Probe, says("How an ejected remote deployment is asked before requests are risked.")] = "models"
    drain_s: Annotated[
        Seconds, says("Remote: read on for so long when a client goes away, to learn what is billed; 0 cancels.")
    ] = 0
    max_concurrency: Annotated[Count | None, says("Requests at the same time; more wait in the queue.")] = None
    reload: Annotated[ReloadEntry | None, says("Recipe: when a new process replaces the engine's.")] = None
    swap_wait_s: Annotated[
        Wait | None, says("Recipe: it takes turns where memory does not hold all; others wait so long at most.")
    ] = None
    abilities: Annotated[DeclaredAbilities, says("What it was measured on.")] = UNDECLARED
    context_tokens: Annotated[Tokens | None, says("The model's window, which the planner respects.")] = None
    max_output_tokens: Annotated[Tokens | None, says("The model's output limit, which the planner respects.")] = None


class RescueEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """How much may be spent on rescuing requests from slow and failing deployments."""

    retry_ratio: Annotated[Share, says("Retries of the same deployment, as a share of requests; 0 for none.")] = 0.1
    max_retries: Annotated[int, Meta(ge=0, le=10), says("Retries of one request.")] = 2
    hedge_ratio: Annotated[Share, says("Hedges, as a share of requests; 0 for none.")] = 0.05
    hedge_cost_ratio: Annotated[Share, says("What hedges may cost, as a share of what everything costs.")] = 0.05


class RouterEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Which pair of models the complexity weights belong to."""

    pair: Annotated[str, says("Weight set of the complexity router.")] = "bundled"


class AlertsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Where budget alerts are sent, besides the log and the metrics."""

    webhook_url: Annotated[str, says("Alerts are posted there as JSON.")]
    webhook_key_env: Annotated[str | None, says("Environment variable of the key that signs in at the webhook.")] = None


class OperatorFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The operator's file: what listens, where state lies, which tiers exist and who serves them."""

    tiers: Annotated[dict[str, list[str]], says("Tier name to deployments, cheapest tier first.")]
    deployments: Annotated[dict[str, DeploymentEntry], says("Deployments by name.")]
    listen: Annotated[str, says("Address of the public listener: HOST:PORT or unix:PATH.")] = ADDRESS
    tls: Annotated[TlsEntry | None, says("Certificate of the public listener; plain HTTP without one.")] = None
    admin: Annotated[AdminEntry, says("The admin listener.")] = AdminEntry()
    state: Annotated[str, says("Budgets, limits, keys, cache: sqlite:PATH or redis://HOST:PORT/DB.")] = DEFAULT_STATE
    replicas: Annotated[Count, says("How many gateways share the state; divides limits while Redis is away.")] = 1
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
class HostedDeployment:
    """A deployment that the gateway hosts by a recipe; price and abilities go before the recipe's own."""

    name: str
    recipe: str
    price: Price | None
    max_concurrency: int | None = None
    abilities: DeclaredAbilities = UNDECLARED
    reload: ReloadPlan | None = None
    swap_wait_s: float | None = None


@dataclass(frozen=True, slots=True)
class RemoteDeployment:
    """A deployment behind an OpenAI-compatible URL; the key's environment variable is named, never its value."""

    name: str
    base_url: str
    model: str
    api_key_env: str | None
    price: Price
    context_tokens: int | None
    max_output_tokens: int | None
    ask_usage: bool = True
    cache_salt: bool = False
    passed: HeaderLists = field(default_factory=HeaderLists)
    model_check: ModelCheck = field(default_factory=ModelCheck)
    serves: frozenset[str] = CHAT_ALONE
    probe: Probe = "models"
    drain_s: float = 0.0
    max_concurrency: int | None = None
    abilities: Abilities = TEXT_ALONE


@dataclass(frozen=True, slots=True)
class EncoderDeployment:
    """Embeddings from the encoder that the semantic cache uses."""

    name: str
    price: Price
    model: str = "all-MiniLM-L6-v2"
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    serves: frozenset[str] = frozenset({EMBEDDINGS})


DeploymentSettings = HostedDeployment | RemoteDeployment | EncoderDeployment


@dataclass(frozen=True, slots=True)
class AlertWebhook:
    """Where budget alerts are posted; the key's environment variable is named, never its value."""

    url: str
    key_env: str | None


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
    rescue: RescueEntry = field(default_factory=RescueEntry)
    edge: Edge = field(default_factory=Edge)
    heartbeat_s: float = HEARTBEAT_S

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


def load_settings(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the operator's file; relative paths in it start at its own folder.

    Args:
        path: the file.
        environ: the environment, of which only the variables listed under `environment` are used.

    Raises:
        ConfigurationError: the first thing that cannot be used, with file, key and mend.
    """
    file, text = str(path), read_text(path)
    variables = _environment(parse_yaml(text, file), file, environ)
    raw = parse_document(text, file, variables).content
    if not isinstance(raw, dict):
        raise ConfigurationError(file, "", "not a mapping of keys to values", "run `headgate init` for an example")
    written = convert(raw, OperatorFile, file)
    _refuse_secrets(written, file)
    base = path.resolve().parent
    prices_file = None if written.prices is None else base / written.prices
    table = _price_table(written, prices_file)
    state_file = base / _state_path(written.state, file)
    deployments = {
        name: _deployment(name, entry, file, table, state_file.parent) for name, entry in written.deployments.items()
    }
    return Settings(
        file=path,
        listen=parse_address(written.listen, file, "listen", base, written.tls),
        admin_listen=parse_address(written.admin.listen, file, "admin.listen", base, written.admin.tls),
        admin_key_file=base / written.admin.key_file,
        state_file=state_file,
        redis_url=written.state if _is_redis(written.state) else None,
        replicas=written.replicas,
        policies=base / written.policies,
        tiers=_tiers(written, file),
        deployments=deployments,
        pair=written.router.pair,
        telemetry=telemetry_settings(written.telemetry, file, environ),
        max_body_bytes=written.max_body_bytes,
        oidc=written.oidc,
        prices_file=prices_file,
        environment=MappingProxyType(variables),
        alert_webhook=_webhook(written.alerts, file),
        cache=cache_settings(written.cache, file, base, state_file.parent),
        routes=checked_routes(written.routes, remote_prices(deployments), file),
        max_waiting=written.max_waiting,
        rescue=written.rescue,
        edge=parse_edge(written.trusted_proxies, written.cors, file),
        heartbeat_s=written.heartbeat_s,
    )


def prices_path(path: Path) -> Path | None:
    """Return the operator's own price file as `prices` names it, whether or not it exists yet.

    Raises:
        ConfigurationError: the operator's file cannot be read, or the key is no text.
    """
    raw = parse_yaml(read_text(path), str(path))
    written = raw.get("prices") if isinstance(raw, dict) else None
    return None if written is None else path.resolve().parent / convert(written, str, str(path), "prices")


def state_folder(path: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Return the folder of the state, whether or not the rest of the operator's file can be used yet.

    Raises:
        ConfigurationError: the file cannot be read, or `state` is no store.
    """
    file, text = str(path), read_text(path)
    raw = parse_document(text, file, _environment(parse_yaml(text, file), file, environ)).content
    written = raw.get("state", DEFAULT_STATE) if isinstance(raw, dict) else DEFAULT_STATE
    return (path.resolve().parent / _state_path(convert(written, str, file, "state"), file)).parent


def state_folder_or_default(path: Path) -> Path:
    """Return the folder of the state; that of the default state where there is no operator's file."""
    return state_folder(path) if path.exists() else Path("var")


def load_policy_set(settings: Settings) -> PolicySet:
    """Read the tenants' policies against the tiers and deployments of `settings`."""
    return load_policies(settings.policies, settings.known, settings.environment)


def on_ports(settings: Settings, port: int | None, admin_port: int | None) -> Settings:
    """Return the settings with other ports, as the command line asked."""
    public = settings.listen if port is None else replace(settings.listen, port=port)
    admin = settings.admin_listen if admin_port is None else replace(settings.admin_listen, port=admin_port)
    return replace(settings, listen=public, admin_listen=admin)


def _tiers(written: OperatorFile, file: str) -> dict[str, tuple[str, ...]]:
    if not written.tiers:
        raise ConfigurationError(file, "tiers", "there is none", "write `tiers: {small: [NAME], large: [NAME]}`")
    for tier, names in written.tiers.items():
        if not names:
            raise ConfigurationError(file, f"tiers.{tier}", "lists no deployment", "name one or remove the tier")
        if tier == "auto" or tier in written.deployments:
            raise ConfigurationError(file, f"tiers.{tier}", "the name means something else too", "rename the tier")
        for name in names:
            if name not in written.deployments:
                known = ", ".join(written.deployments) or "none"
                raise ConfigurationError(
                    file, f"tiers.{tier}", f"unknown deployment {name!r}", f"use one of: {known}; or define it"
                )
    return {tier: tuple(names) for tier, names in written.tiers.items()}


def _environment(raw: object, file: str, environ: Mapping[str, str]) -> dict[str, str | None]:
    """Return the listed variables and their values, None where one is not set."""
    listed = raw.get("environment") if isinstance(raw, dict) else None
    names = convert([] if listed is None else listed, list[str], file, "environment")
    for at, name in enumerate(names):
        if not _VARIABLE_NAME.match(name):
            problem = f"{name[:80]!r} is not a variable's name"
            raise ConfigurationError(file, f"environment[{at}]", problem, "write it without $ and braces")
    return {name: _value(name, file, f"environment[{at}]", environ) for at, name in enumerate(names)}


def _value(name: str, file: str, key: str, environ: Mapping[str, str]) -> str | None:
    """Return a variable's value, or what stands in the file that `NAME_FILE` names, as containers get their secrets."""
    path = environ.get(f"{name}_FILE")
    if name in environ or path is None:
        return environ.get(name)
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not text"
        mend = f"correct {name}_FILE, or set {name} itself"
        raise ConfigurationError(file, key, f"{path} cannot be read ({reason})", mend) from problem


def _refuse_secrets(written: OperatorFile, file: str) -> None:
    """Keep provider keys out of what policies can quote."""
    secrets = {entry.api_key_env for entry in written.deployments.values()}
    secrets |= {None if written.alerts is None else written.alerts.webhook_key_env}
    for at, name in enumerate(written.environment):
        if name in secrets:
            problem = f"{name!r} holds a key, which files must not be able to quote"
            raise ConfigurationError(file, f"environment[{at}]", problem, "remove it from the list")


def _price_table(written: OperatorFile, prices_file: Path | None) -> Mapping[str, Price]:
    """Read the price table where a deployment refers to it, or the operator has one, which must then be valid."""
    prices = [entry.price for entry in written.deployments.values()]
    refers = any(price == TABLE or (isinstance(price, Mapping) and TABLE in price) for price in prices)
    return load_price_table(prices_file).prices() if refers or prices_file is not None else {}


def _webhook(entry: AlertsEntry | None, file: str) -> AlertWebhook | None:
    if entry is None:
        return None
    return AlertWebhook(plain_url(entry.webhook_url, file, "alerts.webhook_url"), entry.webhook_key_env)


def _deployment(
    name: str, entry: DeploymentEntry, file: str, table: Mapping[str, Price], state_dir: Path
) -> DeploymentSettings:
    key = f"deployments.{name}"
    if name == "auto":
        raise ConfigurationError(file, key, "the name means something else too", "rename the deployment")
    if (entry.recipe is None) == (entry.backend is None):
        raise ConfigurationError(file, key, "needs exactly one of `recipe` and `backend`", "keep one of them")
    if entry.recipe is not None:
        return HostedDeployment(
            name,
            entry.recipe,
            _hosted_price(entry.recipe, entry.price, file, key, table, state_dir),
            entry.max_concurrency,
            entry.abilities,
            reload_plan(entry.reload, file, f"{key}.reload"),
            entry.swap_wait_s,
        )
    hosted_only = "reload" if entry.reload is not None else "swap_wait_s" if entry.swap_wait_s is not None else None
    if hosted_only is not None:
        raise ConfigurationError(file, f"{key}.{hosted_only}", "is for hosted engines only", "remove the key")
    if entry.backend == "encoder":
        return EncoderDeployment(name, parse_price(entry.price, file, f"{key}.price", table=table))
    if entry.model is None:
        raise ConfigurationError(file, f"{key}.model", "the key is missing", "name the model as the upstream knows it")
    return RemoteDeployment(
        name=name,
        base_url=plain_url(entry.base_url, file, f"{key}.base_url"),
        model=entry.model,
        api_key_env=entry.api_key_env,
        price=parse_price(entry.price, file, f"{key}.price", table=table, model=entry.model),
        context_tokens=entry.context_tokens,
        max_output_tokens=entry.max_output_tokens,
        ask_usage=entry.ask_usage,
        cache_salt=entry.cache_salt,
        passed=HeaderLists(
            checked_headers(entry.request_headers, file, f"{key}.request_headers"),
            checked_headers(entry.response_headers, file, f"{key}.response_headers"),
        ),
        model_check=ModelCheck(frozenset(entry.served_as), entry.on_other_model == "error"),
        serves=CHAT_ALONE if entry.serves is None else frozenset(PATHS[one] for one in entry.serves),
        probe=entry.probe,
        drain_s=entry.drain_s,
        max_concurrency=entry.max_concurrency,
        abilities=entry.abilities.over(TEXT_ALONE),
    )


def _hosted_price(
    recipe: str, raw: object, file: str, key: str, table: Mapping[str, Price], state_dir: Path
) -> Price | None:
    """Return the price that overrides the recipe's, None without one."""
    if raw is None:
        return None
    if raw == MEASURED:
        return measured_price(recipe, state_dir, file, f"{key}.price")
    return parse_price(raw, file, f"{key}.price", table=table)


def _state_path(value: str, file: str) -> str:
    """Return where the files of this replica lie: with Redis, what is not shared stays beside the default path."""
    if _is_redis(value):
        return DEFAULT_STATE.removeprefix("sqlite:")
    kind, _, path = value.partition(":")
    if kind != "sqlite" or not path:
        mend = "write sqlite:PATH or redis://HOST:PORT/DB"
        raise ConfigurationError(file, "state", f"{value[:80]!r} is not a store", mend)
    return path


def remote_prices(deployments: Mapping[str, DeploymentSettings]) -> Mapping[str, Price]:
    """Return the prices of the remote deployments, which alone can answer mapped routes."""
    return {name: one.price for name, one in deployments.items() if isinstance(one, RemoteDeployment)}


def _is_redis(state: str) -> bool:
    return state.startswith(("redis://", "rediss://", "unix://"))
