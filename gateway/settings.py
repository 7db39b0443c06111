"""The operator's file `headgate.yaml`, parsed into a valid value: what is wrong is one line, before anything starts."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from core.errors import ConfigurationError
from core.money import Price
from policies.loading import Known, PolicySet, load_policies
from policies.prices import parse_price
from policies.safe_yaml import load_yaml
from policies.schema import convert

DEFAULT_FILE = "headgate.yaml"
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})
Bytes = Annotated[int, Meta(ge=1024, le=1 << 30)]
Tokens = Annotated[int, Meta(ge=1)]


class AdminEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """The admin listener."""

    listen: str = "127.0.0.1:8081"
    key_file: str = "var/admin.key"


class DeploymentEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment: either a recipe that we host, or a remote server."""

    recipe: str | None = None
    backend: Literal["remote"] | None = None
    base_url: str | None = None
    model: str | None = None
    api_key_env: str | None = None
    price: object = None
    region: str | None = None
    context_tokens: Tokens | None = None
    max_output_tokens: Tokens | None = None


class RouterEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Which pair of models the complexity weights belong to."""

    pair: str = "bundled"


class TelemetryEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Where spans go; without an endpoint none are made."""

    otlp_endpoint: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class OperatorFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file as it is written."""

    tiers: dict[str, list[str]]
    deployments: dict[str, DeploymentEntry]
    listen: str = "127.0.0.1:8080"
    admin: AdminEntry = AdminEntry()
    state: str = "sqlite:var/headgate.db"
    policies: str = "policies/tenants"
    router: RouterEntry = RouterEntry()
    telemetry: TelemetryEntry = TelemetryEntry()
    max_body_bytes: Bytes = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port to listen on; port 0 takes any free one."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class HostedDeployment:
    """A deployment that the gateway hosts by a recipe; a price overrides the recipe's."""

    name: str
    recipe: str
    price: Price | None


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
    deployments: Mapping[str, HostedDeployment | RemoteDeployment]
    pair: str
    otlp_endpoint: str | None
    log_level: str
    max_body_bytes: int

    @property
    def pepper_file(self) -> Path:
        """Return the file of the secret that key hashes and cache keys are made with."""
        return self.state_file.with_name("pepper.key")

    def beside(self, what: str) -> Path:
        """Return a further state file, such as `headgate-cache.db` beside `headgate.db`."""
        return self.state_file.with_name(f"{self.state_file.stem}-{what}{self.state_file.suffix}")


def load_settings(path: Path) -> Settings:
    """Read the operator's file; relative paths in it start at its own folder.

    Raises:
        ConfigurationError: the first thing that cannot be used, with file, key and mend.
    """
    raw = load_yaml(path)
    file = str(path)
    if not isinstance(raw, dict):
        raise ConfigurationError(file, "", "not a mapping of keys to values", "run `headgate init` for an example")
    written = convert(raw, OperatorFile, file)
    base = path.resolve().parent
    deployments = {name: _deployment(name, entry, file) for name, entry in written.deployments.items()}
    return Settings(
        file=path,
        listen=_address(written.listen, file, "listen"),
        admin_listen=_address(written.admin.listen, file, "admin.listen"),
        admin_key_file=base / written.admin.key_file,
        state_file=base / _state_path(written.state, file),
        policies=base / written.policies,
        tiers=_tiers(written, file),
        deployments=deployments,
        pair=written.router.pair,
        otlp_endpoint=written.telemetry.otlp_endpoint,
        log_level=written.telemetry.log_level,
        max_body_bytes=written.max_body_bytes,
    )


def load_policy_set(settings: Settings) -> PolicySet:
    """Read the tenants' policies against the tiers and deployments of `settings`."""
    return load_policies(settings.policies, Known(tuple(settings.tiers), frozenset(settings.deployments)))


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


def _deployment(name: str, entry: DeploymentEntry, file: str) -> HostedDeployment | RemoteDeployment:
    key = f"deployments.{name}"
    if name == "auto":
        raise ConfigurationError(file, key, "the name means something else too", "rename the deployment")
    if (entry.recipe is None) == (entry.backend is None):
        raise ConfigurationError(file, key, "needs exactly one of `recipe` and `backend`", "keep one of them")
    if entry.recipe is not None:
        price = None if entry.price is None else parse_price(entry.price, file, f"{key}.price")
        return HostedDeployment(name, entry.recipe, price)
    if entry.model is None:
        raise ConfigurationError(file, f"{key}.model", "the key is missing", "name the model as the upstream knows it")
    return RemoteDeployment(
        name=name,
        base_url=_base_url(entry.base_url, file, f"{key}.base_url"),
        model=entry.model,
        api_key_env=entry.api_key_env,
        price=parse_price(entry.price, file, f"{key}.price"),
        context_tokens=entry.context_tokens,
        max_output_tokens=entry.max_output_tokens,
    )


def _base_url(value: str | None, file: str, key: str) -> str:
    """Accept an http(s) URL without credentials, query or fragment."""
    if value is None:
        raise ConfigurationError(file, key, "the key is missing", "write the URL up to and with /v1")
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if not usable or url.query or url.fragment or url.username or url.password:
        raise ConfigurationError(file, key, f"{value[:80]!r} is not a plain http(s) URL", "write https://host/v1")
    return value.rstrip("/")


def _address(value: str, file: str, key: str) -> Address:
    host, separator, port = value.rpartition(":")
    if not separator or not host or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise ConfigurationError(file, key, f"{value!r} is not HOST:PORT", "write for example 127.0.0.1:8080")
    return Address(host.strip("[]"), int(port))


def _state_path(value: str, file: str) -> str:
    kind, _, path = value.partition(":")
    if kind != "sqlite" or not path:
        mend = "write sqlite:PATH, for example sqlite:var/headgate.db"
        raise ConfigurationError(file, "state", f"{value!r} is not a store of this version", mend)
    return path
