"""The sections `deployments` and `tiers`: who can answer, at what price, and who serves which tier."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct

from backends.declared_abilities import UNDECLARED, DeclaredAbilities
from backends.engines.reload_plan import ReloadPlan
from backends.protocol import HeaderLists
from backends.served_model import ModelCheck
from core.endpoints import CHAT_ALONE, EMBEDDINGS
from core.errors import ConfigurationError
from core.money import Price
from core.plan import TEXT_ALONE, Abilities
from gateway.settings.measured_prices import measured_price
from gateway.settings.passed_headers import checked_headers
from gateway.settings.reload_settings import ReloadEntry, reload_plan
from gateway.settings.route_map import PATHS
from gateway.settings.urls import plain_url
from policies.prices import MEASURED, parse_price
from policies.schema import says

Count = Annotated[int, Meta(ge=1, le=1_000)]
Tokens = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0, le=120)]
Wait = Annotated[float, Meta(gt=0, le=3_600)]
Probe = Literal["models", "completion", "none"]


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
    metrics_url: Annotated[
        str | None, says("Remote: where its engine shows its own metrics, so that forecasts know its queue.")
    ] = None
    reload: Annotated[ReloadEntry | None, says("Recipe: when a new process replaces the engine's.")] = None
    swap_wait_s: Annotated[
        Wait | None, says("Recipe: it takes turns where memory does not hold all; others wait so long at most.")
    ] = None
    abilities: Annotated[DeclaredAbilities, says("What it was measured on.")] = UNDECLARED
    context_tokens: Annotated[Tokens | None, says("The model's window, which the planner respects.")] = None
    max_output_tokens: Annotated[Tokens | None, says("The model's output limit, which the planner respects.")] = None


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
    metrics_url: str | None = None
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


def parse_deployments(
    entries: Mapping[str, DeploymentEntry], file: str, table: Mapping[str, Price], state_dir: Path
) -> dict[str, DeploymentSettings]:
    """Return the deployments by name.

    Args:
        entries: as the operator wrote them.
        file: the operator's file, for errors.
        table: the price table that prices may refer to.
        state_dir: the folder of the state, where measured prices lie.

    Raises:
        ConfigurationError: the first entry that cannot be used.
    """
    return {name: _deployment(name, entry, file, table, state_dir) for name, entry in entries.items()}


def remote_prices(deployments: Mapping[str, DeploymentSettings]) -> Mapping[str, Price]:
    """Return the prices of the remote deployments, which alone can answer mapped routes."""
    return {name: one.price for name, one in deployments.items() if isinstance(one, RemoteDeployment)}


def parse_tiers(
    tiers: Mapping[str, Sequence[str]], deployments: Collection[str], file: str
) -> dict[str, tuple[str, ...]]:
    """Return the deployments of every tier, cheapest tier first.

    Raises:
        ConfigurationError: there is no tier, or one has no deployment, an unknown one, or a name that is taken.
    """
    if not tiers:
        raise ConfigurationError(file, "tiers", "there is none", "write `tiers: {small: [NAME], large: [NAME]}`")
    for tier, names in tiers.items():
        if not names:
            raise ConfigurationError(file, f"tiers.{tier}", "lists no deployment", "name one or remove the tier")
        if tier == "auto" or tier in deployments:
            raise ConfigurationError(file, f"tiers.{tier}", "the name means something else too", "rename the tier")
        for name in names:
            if name not in deployments:
                known = ", ".join(deployments) or "none"
                raise ConfigurationError(
                    file, f"tiers.{tier}", f"unknown deployment {name!r}", f"use one of: {known}; or define it"
                )
    return {tier: tuple(names) for tier, names in tiers.items()}


def _deployment(
    name: str, entry: DeploymentEntry, file: str, table: Mapping[str, Price], state_dir: Path
) -> DeploymentSettings:
    key = f"deployments.{name}"
    if name == "auto":
        raise ConfigurationError(file, key, "the name means something else too", "rename the deployment")
    if (entry.recipe is None) == (entry.backend is None):
        raise ConfigurationError(file, key, "needs exactly one of `recipe` and `backend`", "keep one of them")
    if entry.recipe is not None:
        return _hosted(name, entry.recipe, entry, file, table, state_dir)
    hosted_only = "reload" if entry.reload is not None else "swap_wait_s" if entry.swap_wait_s is not None else None
    if hosted_only is not None:
        raise ConfigurationError(file, f"{key}.{hosted_only}", "is for hosted engines only", "remove the key")
    if entry.backend == "encoder":
        return EncoderDeployment(name, parse_price(entry.price, file, f"{key}.price", table=table))
    return _remote(name, entry, file, table)


def _hosted(
    name: str, recipe: str, entry: DeploymentEntry, file: str, table: Mapping[str, Price], state_dir: Path
) -> HostedDeployment:
    key = f"deployments.{name}"
    return HostedDeployment(
        name=name,
        recipe=recipe,
        price=_hosted_price(recipe, entry.price, file, key, table, state_dir),
        max_concurrency=entry.max_concurrency,
        abilities=entry.abilities,
        reload=reload_plan(entry.reload, file, f"{key}.reload"),
        swap_wait_s=entry.swap_wait_s,
    )


def _remote(name: str, entry: DeploymentEntry, file: str, table: Mapping[str, Price]) -> RemoteDeployment:
    key = f"deployments.{name}"
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
        metrics_url=_metrics_url(entry, file, key),
        abilities=entry.abilities.over(TEXT_ALONE),
    )


def _metrics_url(entry: DeploymentEntry, file: str, key: str) -> str | None:
    """Return where a remote engine shows its metrics, None where nobody said so."""
    example = "http://host:8000/metrics"
    return None if entry.metrics_url is None else plain_url(entry.metrics_url, file, f"{key}.metrics_url", example)


def _hosted_price(
    recipe: str, raw: object, file: str, key: str, table: Mapping[str, Price], state_dir: Path
) -> Price | None:
    """Return the price that overrides the recipe's, None without one."""
    if raw is None:
        return None
    if raw == MEASURED:
        return measured_price(recipe, state_dir, file, f"{key}.price")
    return parse_price(raw, file, f"{key}.price", table=table)
