"""Nothing of one scope is found in another: equality of scopes over every dimension, and a fuzz of 100,000 look-ups."""

import json
import random
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cache.embedder import Embedder
from cache.entry_store import MemoryEntryStore
from cache.fingerprint import Fingerprinter
from cache.semantic_cache import SemanticCache
from cache.vector_index import BruteForceIndex
from core.cached import ExactHit, SemanticHit, Vector
from core.chat import ChatRequest, parse_chat_request
from core.clock import ManualClock
from core.identity import Caller
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, Target, TierTarget
from tests.caching import WordEmbedder, answer, direction, policy

PRINTS = Fingerprinter(b"0123456789abcdef")
LOOK_UPS = 100_000
AUTO = AutoTarget()
TENANTS = tuple(f"tenant-{number}" for number in range(12))
QUESTIONS = (
    "What is the capital of France?",
    "Which city is the capital of France?",
    "How do I repair a bicycle?",
    "What is the best way to repair a bike?",
    "What is my order status?",
    "Sort these numbers: 7 3 9",
    "hello, what's the capital of france",
)


@dataclass(frozen=True)
class Place:
    """Everything beside the last user text that may change an answer."""

    tenant: str = "a"
    alias: str = "auto"
    target: Target = AUTO
    version: str = "v1"
    per_user: bool = False
    user: str | None = None
    system: str = "s"
    history: tuple[str, ...] = ()
    fields: tuple[tuple[str, Any], ...] = ()

    def request(self, text: str, request_id: str = "r") -> ChatRequest:
        messages = [{"role": "system", "content": self.system}]
        for turn in self.history:
            messages += [{"role": "user", "content": turn}, {"role": "assistant", "content": "yes"}]
        body: dict[str, Any] = {"model": "auto", "messages": [*messages, {"role": "user", "content": text}]}
        body |= dict(self.fields) | ({} if self.user is None else {"user": self.user})
        return parse_chat_request(json.dumps(body).encode(), request_id)

    def policy(self) -> EffectivePolicy:
        return policy(
            tenant=self.tenant, version=self.version, alias=self.alias, target=self.target, per_user=self.per_user
        )

    def caller(self) -> Caller:
        return Caller(self.tenant, "k")


PLACES = st.builds(
    Place,
    tenant=st.sampled_from(["a", "b"]),
    alias=st.sampled_from(["auto", "gpt"]),
    target=st.sampled_from([AutoTarget(), TierTarget("small"), TierTarget("large"), DeploymentTarget("small")]),
    version=st.sampled_from(["v1", "v2"]),
    per_user=st.booleans(),
    user=st.sampled_from([None, "u1", "u2"]),
    system=st.sampled_from(["s", "t"]),
    history=st.sampled_from([(), ("x",), ("x", "y")]),
    fields=st.sampled_from(
        [(), (("temperature", 0),), (("temperature", 1),), (("seed", 0),), (("max_tokens", 8),), (("unknown", [1]),)]
    ),
)
DIMENSIONS = st.sampled_from(["tenant", "alias", "target", "version", "user", "system", "history", "fields"])


def scope(place: Place, text: str) -> str:
    return PRINTS.keys(place.caller(), place.request(text), place.policy()).scope


def identity(place: Place, text: str) -> tuple[Any, ...]:
    """Spell out what may change the answer; the user counts where the policy or a personal question says so."""
    user = place.user if place.per_user or text == "What is my order status?" else None
    return (*(place.tenant, place.alias, place.target, place.version, user, place.system, place.history, place.fields),)


@settings(max_examples=300, deadline=None)
@given(PLACES, PLACES, DIMENSIONS, st.sampled_from(QUESTIONS))
def test_scopes_are_equal_if_and_only_if_every_dimension_is(
    one: Place, other: Place, dimension: str, text: str
) -> None:
    near = Place(**{**one.__dict__, dimension: getattr(other, dimension)})
    for pair in ((one, other), (one, near)):
        places = [identity(place, text) for place in pair]
        assert (scope(pair[0], text) == scope(pair[1], text)) == (places[0] == places[1])


class RememberingEmbedder(WordEmbedder):
    """Shared words as direction, computed once for each text."""

    async def embed(self, texts: Any) -> tuple[Vector | None, ...]:
        return tuple(_direction(text) for text in texts)


@lru_cache(maxsize=1_000)
def _direction(text: str) -> Vector:
    return direction(text)


async def test_a_hundred_thousand_look_ups_find_nothing_of_another_scope() -> None:
    clock, chance = ManualClock(), random.Random(7)
    embedder: Embedder = RememberingEmbedder()
    cache = SemanticCache(PRINTS, MemoryEntryStore(clock), BruteForceIndex(), embedder, clock)
    places = [_random_place(chance) for _ in range(400)]
    asked = [(place, text, place.request(text), place.policy()) for place in places for text in QUESTIONS]
    for place, text, request, rules in asked:
        if chance.random() < 0.3:
            content = json.dumps([repr(identity(place, text)), text])
            await cache.store(place.caller(), request, rules, answer(content, tier="small", deployment="small"))
    outcomes: Counter[str] = Counter()
    for _ in range(LOOK_UPS):
        place, text, request, rules = chance.choice(asked)
        found = await cache.lookup(place.caller(), request, rules)
        outcomes[type(found).__name__] += 1
        if isinstance(found, ExactHit | SemanticHit):
            made_for, _ = json.loads(found.entry.answer.content)
            assert made_for == repr(identity(place, text))
            assert found.entry.tenant == place.tenant
    assert min(outcomes["ExactHit"], outcomes["SemanticHit"], outcomes["Miss"]) > 1_000
    assert cache.stats.failed == 0
    await cache.close()


def _random_place(chance: random.Random) -> Place:
    """Return a place that differs from others in few dimensions, so that leaks would be likely."""
    return Place(
        tenant=chance.choice(TENANTS),
        alias=chance.choice(("auto", "gpt")),
        target=chance.choice((AutoTarget(), TierTarget("small"))),
        per_user=chance.random() < 0.2,
        user=chance.choice((None, "u1", "u2")),
        system=chance.choice(("s", "t")),
        history=chance.choice(((), ("x",))),
        fields=chance.choice(((), (("temperature", 0),))),
    )
