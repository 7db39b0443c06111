"""The order of levels, the caller's controls, isolation on a hit, and failing open."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from cache.entry_store import MemoryEntryStore
from cache.fingerprint import Fingerprinter
from cache.guard import Guard, Served, Vetoed
from cache.semantic_cache import SemanticCache
from cache.vector_index import BruteForceIndex, Neighbour
from core.cached import Bypass, Entry, ExactHit, Miss, NearHit, SemanticHit, Vector
from core.chat import CacheControls
from core.clock import ManualClock
from core.rules import TierTarget
from tests.caching import WordEmbedder, answer, caller, policy, request

CAPITAL = "What is the capital of France?"


class Bench:
    """A cache over twins, with its parts at hand."""

    def __init__(self, **parts: Any) -> None:
        self.clock = ManualClock(datetime.fromtimestamp(0, UTC))
        self.embedder = WordEmbedder()
        self.store = MemoryEntryStore(self.clock)
        self.index = BruteForceIndex()
        built: dict[str, Any] = {"store": self.store, "index": self.index, "embedder": self.embedder} | parts
        self.cache = SemanticCache(Fingerprinter(b"0123456789abcdef"), clock=self.clock, **built)

    async def kept(self, text: str = CAPITAL, content: str = "Paris.", **fields: Any) -> str:
        entry_id = await self.cache.store(caller(), request(text, **fields), policy(), answer(content))
        assert entry_id is not None
        return entry_id


async def test_the_levels_answer_in_their_order() -> None:
    bench = Bench()
    entry_id = await bench.kept()
    for text, kind in ((CAPITAL, ExactHit), ("hello, what's the capital of france", ExactHit)):
        embedded = len(bench.embedder.texts)
        found = await bench.cache.lookup(caller(), request(text), policy())
        assert isinstance(found, kind)
        assert found.entry.entry_id == entry_id
        assert len(bench.embedder.texts) == embedded
    found = await bench.cache.lookup(caller(), request("Which city is the capital of France?"), policy())
    assert isinstance(found, SemanticHit)
    assert found.entry.answer.content == "Paris."
    assert 0.7 < found.similarity < 1.0


async def test_similar_with_another_meaning_is_a_near_hit() -> None:
    bench = Bench()
    entry_id = await bench.kept("Sort these numbers: 7 3 9")
    found = await bench.cache.lookup(caller(), request("Sort these numbers: 7 3 8"), policy())
    assert isinstance(found, NearHit)
    assert (found.entry_id, found.veto) == (entry_id, "number")
    assert found.vector is not None
    assert bench.cache.stats.near == 1


async def test_the_event_loop_has_its_turn_between_two_neighbours() -> None:
    turns, seen = 0, []

    class NotingGuard(Guard):
        def judge(self, *pair: Any, **how: Any) -> Served | Vetoed:
            seen.append(turns)
            return super().judge(*pair, **how)

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    bench = Bench(guard=NotingGuard())
    for number in (3, 4, 5):
        await bench.kept(f"Sort these numbers: 7 {number} 9")
    turning = asyncio.create_task(turn())
    assert isinstance(await bench.cache.lookup(caller(), request("Sort these numbers: 7 2 9"), policy()), NearHit)
    turning.cancel()
    assert len(seen) == len(set(seen)) == 3


async def test_something_else_is_a_miss_with_the_routers_vector() -> None:
    bench = Bench()
    await bench.kept()
    found = await bench.cache.lookup(caller(), request("Why do owls turn their heads?"), policy())
    assert isinstance(found, Miss)
    assert found.vector is not None


async def test_a_bypass_carries_the_vector_only_for_the_router() -> None:
    bench = Bench()
    controls = CacheControls(bypass=True)
    auto = await bench.cache.lookup(caller(), request(controls=controls), policy())
    named = await bench.cache.lookup(caller(), request(controls=controls), policy(target=TierTarget("small")))
    assert isinstance(auto, Bypass)
    assert auto.why == "caller"
    assert auto.vector is not None
    assert named == Bypass("caller", None)


async def test_refresh_skips_the_lookup_and_replaces_the_entry() -> None:
    bench = Bench()
    await bench.kept()
    refresh = request(controls=CacheControls(refresh=True))
    assert isinstance(await bench.cache.lookup(caller(), refresh, policy()), Bypass)
    await bench.cache.store(caller(), refresh, policy(), answer("Paris, still."))
    found = await bench.cache.lookup(caller(), request(), policy())
    assert isinstance(found, ExactHit)
    assert found.entry.answer.content == "Paris, still."
    assert len(bench.index) == 1


async def test_max_age_and_ttl_bound_the_age_of_a_hit() -> None:
    bench = Bench()
    await bench.kept()
    bench.clock.advance(60)
    young = request(controls=CacheControls(max_age_s=59))
    assert isinstance(await bench.cache.lookup(caller(), young, policy()), Miss | NearHit)
    found = await bench.cache.lookup(caller(), request(), policy())
    assert isinstance(found, ExactHit)
    assert found.age_s == 60
    bench.clock.advance(86_340)
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), Miss)


async def test_no_store_and_bypass_keep_nothing() -> None:
    bench = Bench()
    for controls in (CacheControls(no_store=True), CacheControls(bypass=True)):
        assert await bench.cache.store(caller(), request(controls=controls), policy(), answer()) is None
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), Miss)


@pytest.mark.parametrize(
    "fields",
    [{"temperature": 1}, {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": CAPITAL}]}],
)
async def test_another_scope_finds_nothing(fields: dict[str, Any]) -> None:
    bench = Bench()
    await bench.kept()
    assert isinstance(await bench.cache.lookup(caller(), request(**fields), policy()), Miss)
    assert isinstance(await bench.cache.lookup(caller("other"), request(), policy(tenant="other")), Miss)


async def test_without_an_encoder_exact_levels_still_work() -> None:
    bench = Bench(embedder=WordEmbedder(ready=False))
    await bench.kept()
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), ExactHit)
    assert await bench.cache.lookup(caller(), request("Which city is the capital of France?"), policy()) == Miss()


async def test_a_tenant_may_ask_for_exact_only() -> None:
    bench = Bench()
    exact_only = policy(semantic=False)
    await bench.cache.store(caller(), request(), exact_only, answer())
    found = await bench.cache.lookup(caller(), request("Which city is the capital of France?"), exact_only)
    assert isinstance(found, Miss)
    assert len(bench.index) == 0


async def test_a_text_beyond_the_window_is_exact_only() -> None:
    bench = Bench()
    long = "word " * 300
    await bench.kept(long)
    assert len(bench.index) == 0
    assert isinstance(await bench.cache.lookup(caller(), request(long), policy()), ExactHit)


async def test_the_index_is_rebuilt_from_the_store_for_the_same_encoder_only() -> None:
    bench = Bench()
    await bench.kept()
    parts = {"store": bench.store, "index": BruteForceIndex()}
    assert await Bench(**parts, embedder=WordEmbedder("another")).cache.load() == 0
    again = Bench(**parts)
    assert await again.cache.load() == 1
    found = await again.cache.lookup(caller(), request("Which city is the capital of France?"), policy())
    assert isinstance(found, SemanticHit)


class LeakyIndex(BruteForceIndex):
    """An index that forgets about partitions."""

    def search(self, partition: str, vector: Vector, k: int) -> list[Neighbour]:
        return [one for name in self._partitions for one in super(LeakyIndex, self).search(name, vector, k)]


class LeakyStore(MemoryEntryStore):
    """A store that forgets about tenants."""

    async def read(self, tenant: str, key: str) -> Entry | None:
        return next((one for one in self._entries.values() if key in (one.entry_id, one.exact_key)), None)


async def test_an_entry_of_another_scope_or_tenant_is_not_served_even_when_index_and_store_err() -> None:
    clock = ManualClock(datetime.fromtimestamp(0, UTC))
    bench = Bench(index=LeakyIndex(), store=LeakyStore(clock))
    await bench.kept()
    paraphrase = "Which city is the capital of France?"
    assert isinstance(await bench.cache.lookup(caller(), request(paraphrase), policy()), SemanticHit)
    assert isinstance(await bench.cache.lookup(caller(), request(paraphrase, seed=1), policy()), Miss)
    other = await bench.cache.lookup(caller("other"), request(paraphrase), policy(tenant="other"))
    assert isinstance(other, Miss)


class BrokenIndex(BruteForceIndex):
    def add(self, partition: str, entry_id: str, vector: Vector) -> None:
        raise RuntimeError("no memory")

    def search(self, partition: str, vector: Vector, k: int) -> list[Neighbour]:
        raise RuntimeError("no memory")


class BrokenStore(MemoryEntryStore):
    async def read(self, tenant: str, key: str) -> Entry | None:
        raise OSError("disk gone")

    async def put(self, entry: Entry) -> tuple[str, ...]:
        raise OSError("disk gone")

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        raise OSError("disk gone")


@pytest.mark.parametrize("part", ["embedder", "index", "store"])
async def test_a_failing_part_is_a_miss_and_a_warning(part: str, caplog: pytest.LogCaptureFixture) -> None:
    broken = {
        "embedder": WordEmbedder(broken=True),
        "index": BrokenIndex(),
        "store": BrokenStore(ManualClock()),
    }
    bench = Bench(**{part: broken[part]})
    await bench.cache.store(caller(), request(), policy(), answer())
    found = await bench.cache.lookup(caller(), request("Which city is the capital of France?"), policy())
    assert isinstance(found, Miss)
    assert "cache failed open" in caplog.text
    assert bench.cache.stats.failed >= 2


async def test_a_corrupt_vector_never_breaks_a_lookup() -> None:
    bench = Bench()
    await bench.kept()
    bench.index.add("scope", "ghost", np.zeros(384, dtype=np.float32))
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), ExactHit)
    await bench.cache.close()


@pytest.mark.parametrize(("least", "is_served"), [(0.0, True), (0.01, True), (1.0, False)])
async def test_a_caller_may_raise_the_threshold(least: float, is_served: bool) -> None:
    bench = Bench()
    await bench.kept()
    asked = request("Which city is the capital of France?", controls=CacheControls(min_score=least))
    assert isinstance(await bench.cache.lookup(caller(), asked, policy()), SemanticHit) == is_served


async def test_a_caller_cannot_lower_the_threshold() -> None:
    bench = Bench()
    await bench.kept()
    asked = request("Which city is the capital of France?", controls=CacheControls(min_score=0.0))
    strict = policy(max_false_hit_rate=0.0)
    assert not isinstance(await bench.cache.lookup(caller(), asked, strict), SemanticHit)
    for _ in range(10):
        bench.cache.evidence.judge("acme", 0.99, is_right=False)
    assert not isinstance(await bench.cache.lookup(caller(), asked, policy()), SemanticHit)
