"""Builders of callers, policies, requests and entries for the cache's tests, and an encoder that needs no weights."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cache.embedder import EncoderUnavailable
from core.cached import CachedAnswer, Entry, Vector
from core.chat import CacheControls, ChatRequest, Demands, parse_chat_request
from core.identity import Caller
from core.money import Usage
from core.rules import AutoTarget, CacheRules, EffectivePolicy, Limits, Routing, Target, TenantPolicy


def caller(tenant: str = "acme") -> Caller:
    return Caller(tenant=tenant, key_id="key_1")


def policy(
    *, tenant: str = "acme", version: str = "v1", alias: str = "auto", target: Target | None = None, **rules: Any
) -> EffectivePolicy:
    return EffectivePolicy(
        tenant_policy=TenantPolicy(
            tenant=tenant,
            version=version,
            models={alias: "auto"},
            tiers=("small", "large"),
            deployments=frozenset(),
            budgets=(),
            limits=Limits(),
            service_class="interactive",
            sla={},
            routing=Routing(),
            cache=CacheRules(**rules),
            max_output_tokens=None,
            on_store_outage="closed",
            when_loading="small",
            fallback=True,
        ),
        alias=alias,
        target=target or AutoTarget(),
    )


def request(
    text: str = "What is the capital of France?", *, controls: CacheControls | None = None, **fields: Any
) -> ChatRequest:
    body: Mapping[str, Any] = {"model": "auto", "messages": [{"role": "user", "content": text}]} | fields
    return parse_chat_request(json.dumps(body).encode(), "req_1", Demands(cache=controls or CacheControls()))


def answer(content: str = "Paris.", **changes: Any) -> CachedAnswer:
    fields: dict[str, Any] = {
        "content": content,
        "finish_reason": "stop",
        "response_model": "m",
        "tier": "small",
        "deployment": "small-int4",
        "usage": Usage(10, 5),
        "cost_nano_usd": 1_000,
    }
    return CachedAnswer(**(fields | changes))


def entry(name: str, **changes: Any) -> Entry:
    """Return an entry whose keys derive from `name`, created at second 0 and alive until second 1,000,000,000,000."""
    fields: dict[str, Any] = {
        "entry_id": f"id-{name}",
        "tenant": "acme",
        "scope": "scope-1",
        "exact_key": f"exact-{name}",
        "normalised_key": f"normalised-{name}",
        "prompt": f"prompt {name}",
        "vector": direction(name),
        "encoder": "words",
        "answer": answer(),
        "created_at_s": 0.0,
        "expires_at_s": 1e12,
    }
    return Entry(**(fields | changes))


def direction(text: str, dimension: int = 384) -> Vector:
    """Return a unit vector that is the sum of a fixed random direction per word, so shared words mean similarity."""
    total = np.zeros(dimension, dtype=np.float32)
    for word in re.findall(r"\w+", text.lower()) or [""]:
        seed = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest())
        total += np.random.default_rng(seed).standard_normal(dimension).astype(np.float32)
    return np.asarray(total / np.linalg.norm(total), dtype=np.float32)


class WordEmbedder:
    """An encoder of shared words; it can be made unready or broken, and has a window in characters."""

    def __init__(self, fingerprint: str = "words", *, ready: bool = True, broken: bool = False) -> None:
        self._fingerprint = fingerprint
        self.ready = ready
        self.broken = broken
        self.texts: list[str] = []

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def is_ready(self) -> bool:
        return self.ready

    async def embed(self, texts: Sequence[str]) -> tuple[Vector | None, ...]:
        if self.broken:
            raise EncoderUnavailable("broken for the test")
        self.texts += texts
        return tuple(None if len(text) > 1_000 else direction(text) for text in texts)

    async def close(self) -> None:
        self.ready = False
