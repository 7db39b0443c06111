"""Builders for planner tests: requests, policies and registries with sensible defaults."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from core.chat import ChatRequest, parse_chat_request
from core.facts import RequestFacts
from core.money import Price
from core.plan import (
    TEXT_ALONE,
    Abilities,
    Complexity,
    DeploymentSnapshot,
    LatencyForecast,
    Readiness,
    RegistrySnapshot,
)
from core.rules import (
    DEFAULT_GIVE_WAY,
    AutoTarget,
    CacheRules,
    EffectivePolicy,
    Limits,
    Routing,
    Sla,
    Target,
    TenantPolicy,
    WhenLoading,
    Wish,
)
from router.facts import facts_of

EASY = Complexity(0.9, "model:test@00000000")
HARD = Complexity(0.1, "model:test@00000000")


def chat(text: str = "Sort 3 1 2", **fields: Any) -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": "user", "content": text}], **fields}
    return parse_chat_request(msgspec.json.encode(body), "req_test")


def declared(request: ChatRequest | None = None) -> RequestFacts:
    return facts_of(request or chat(), "/v1/chat/completions")


def deployment(
    name: str,
    price: int = 1_000,
    readiness: Readiness = Readiness.READY,
    *,
    context_tokens: int | None = None,
    max_output_tokens: int | None = None,
    expected_output_tokens: int = 256,
    retry_after_s: float = 1.0,
    forecast: LatencyForecast | None = None,
    abilities: Abilities = TEXT_ALONE,
    local: bool = False,
) -> DeploymentSnapshot:
    return DeploymentSnapshot(
        name=name,
        model=f"{name}-model",
        price=Price(price, price),
        readiness=readiness,
        context_tokens=context_tokens,
        max_output_tokens=max_output_tokens,
        expected_output_tokens=expected_output_tokens,
        retry_after_s=retry_after_s,
        forecast=forecast,
        abilities=abilities,
        local=local,
    )


def registry(
    *tiers: Sequence[DeploymentSnapshot], names: Sequence[str] = ("small", "large", "huge")
) -> RegistrySnapshot:
    every: Mapping[str, DeploymentSnapshot] = {one.name: one for tier in tiers for one in tier}
    return RegistrySnapshot(
        every, {name: tuple(one.name for one in tier) for name, tier in zip(names, tiers, strict=False)}
    )


def two_tiers(small: Readiness = Readiness.READY, large: Readiness = Readiness.READY) -> RegistrySnapshot:
    return registry([deployment("s", 1_000, small)], [deployment("l", 10_000, large, retry_after_s=7.0)])


def beside(snapshot: RegistrySnapshot, *others: DeploymentSnapshot) -> RegistrySnapshot:
    """Return the registry with further deployments that are in no tier."""
    return RegistrySnapshot({**snapshot.deployments, **{one.name: one for one in others}}, snapshot.tiers)


def policy(
    target: Target = AutoTarget(),  # noqa: B008  (a frozen value without fields)
    *,
    quality: float | None = None,
    tiers: tuple[str, ...] = ("small", "large", "huge"),
    deployments: frozenset[str] = frozenset(),
    when_loading: WhenLoading = "small",
    fallback: bool = True,
    max_output_tokens: int | None = None,
    sla: Mapping[str, Sla] | None = None,
    give_way: tuple[Wish, ...] = DEFAULT_GIVE_WAY,
) -> EffectivePolicy:
    rules = TenantPolicy(
        tenant="acme",
        version="v1",
        models={"auto": "auto"},
        tiers=tiers,
        deployments=deployments,
        budgets=(),
        limits=Limits(),
        service_class="interactive",
        sla=sla or {},
        routing=Routing(quality=quality, give_way=give_way),
        cache=CacheRules(),
        max_output_tokens=max_output_tokens,
        on_store_outage="closed",
        when_loading=when_loading,
        fallback=fallback,
    )
    return EffectivePolicy(rules, "auto", target)
