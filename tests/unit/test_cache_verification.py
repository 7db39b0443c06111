"""Shadow checks, near hits compared with the fresh answer, and feedback, through the cache."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cache.calibration import NEVER, shipped_score
from cache.entry_store import MemoryEntryStore, StoreUnavailable
from cache.evidence_file import load_evidence, save_evidence
from cache.shadow import AnswerComparison, Shadow
from core.cached import ExactHit, Miss, NearHit, SemanticHit
from core.chat import ChatRequest, parse_chat_request
from core.clock import ManualClock
from core.identity import Caller
from core.rules import EffectivePolicy
from tests.caching import WordEmbedder, answer, caller, policy, request
from tests.unit.test_cache_semantic_cache import Bench

CAPITAL = "What is the capital of France?"
PARAPHRASE = "Which city is the capital of France?"


class Backend:
    """What a shadow check asks; it answers one text, nothing, or fails."""

    def __init__(self, text: str | None = "Paris.", *, broken: bool = False) -> None:
        self.text = text
        self.broken = broken
        self.asked = 0

    async def ask(self, caller: Caller, request: ChatRequest, policy: EffectivePolicy, tier: str) -> str | None:
        self.asked += 1
        if self.broken:
            raise ConnectionError("away")
        return self.text


def bench_with(backend: Backend, chance: float = 0.0) -> tuple[Bench, Shadow]:
    bench = Bench()
    shadow = Shadow(backend.ask, AnswerComparison(bench.embedder), chance=lambda: chance)
    bench.cache.verification.shadow = shadow
    return bench, shadow


def named(request_id: str, text: str = PARAPHRASE, **fields: Any) -> ChatRequest:
    raw = request(text, **fields)
    body = b"{" + b",".join(b'"%b":%b' % (name.encode(), bytes(part)) for name, part in raw.fields.items()) + b"}"
    return parse_chat_request(body, request_id, raw.demands)


async def test_a_verified_hit_feeds_the_bound() -> None:
    bench, shadow = bench_with(Backend())
    await bench.kept()
    found = await bench.cache.lookup(caller(), named("r1"), policy(shadow_ratio=0.01))
    assert isinstance(found, SemanticHit)
    await shadow.settle()
    (report,) = bench.cache.evidence.reports()
    assert (report.judged, report.wrong) == (1, 0)


async def test_a_hit_that_the_backend_contradicts_is_not_served_again() -> None:
    bench, shadow = bench_with(Backend("Lyon, the old seat of silk."))
    await bench.kept()
    await bench.cache.lookup(caller(), named("r1"), policy(shadow_ratio=0.01))
    await shadow.settle()
    found = await bench.cache.lookup(caller(), named("r2"), policy(shadow_ratio=0.01))
    assert isinstance(found, NearHit)
    assert found.veto == "feedback"
    assert bench.cache.evidence.reports()[0].wrong == 1


@pytest.mark.parametrize(("ratio", "chance", "asked"), [(0.0, 0.0, 0), (0.01, 0.02, 0), (0.01, 0.005, 1)])
async def test_only_the_policys_share_of_hits_is_asked(ratio: float, chance: float, asked: int) -> None:
    backend = Backend()
    bench, shadow = bench_with(backend, chance)
    await bench.kept()
    await bench.cache.lookup(caller(), named("r1"), policy(shadow_ratio=ratio))
    await shadow.settle()
    assert backend.asked == asked


@pytest.mark.parametrize("backend", [Backend(None), Backend(broken=True)])
async def test_a_check_that_cannot_be_made_is_no_evidence(backend: Backend) -> None:
    bench, shadow = bench_with(backend)
    await bench.kept()
    await bench.cache.lookup(caller(), named("r1"), policy(shadow_ratio=0.5))
    await shadow.settle()
    assert backend.asked == 1
    assert bench.cache.evidence.reports()[0].judged == 0


async def test_wrong_hits_demote_the_tenant_by_themselves() -> None:
    bench, shadow = bench_with(Backend("Something else entirely, about boats."))
    rules = policy(shadow_ratio=1.0)
    for place in ("France", "Spain", "Italy", "Norway", "Poland", "Greece", "Chile", "Peru", "Kenya", "Ghana"):
        await bench.kept(f"What is the capital of {place}?")
        await bench.cache.lookup(caller(), named(place, f"Which city is the capital of {place}?"), rules)
        await shadow.settle()
    standing = bench.cache.evidence.standing("acme", 0.005)
    assert standing.source in ("tightened", "demoted")
    assert standing.threshold > shipped_score().default_threshold
    await bench.kept("What is the capital of Iceland?")
    found = await bench.cache.lookup(caller(), named("x", "Which city is the capital of Iceland?"), rules)
    assert not isinstance(found, SemanticHit)


async def test_an_uncalibrated_tenant_learns_from_near_hits_without_a_call() -> None:
    backend = Backend()
    bench, shadow = bench_with(backend)
    await bench.kept()
    rules = policy(shadow_ratio=0.01, max_false_hit_rate=0.0)
    asks = named("r1")
    assert not isinstance(await bench.cache.lookup(caller(), asks, rules), SemanticHit)
    await bench.cache.store(caller(), asks, rules, answer("Paris."))
    await shadow.settle()
    assert backend.asked == 0
    assert bench.cache.evidence.reports()[0].judged == 1
    assert bench.cache.evidence.standing("acme", 0.0).threshold == NEVER


async def test_feedback_removes_the_entry_and_the_pair_is_never_served_again() -> None:
    bench = Bench()
    await bench.kept()
    assert isinstance(await bench.cache.lookup(caller(), named("r1"), policy()), SemanticHit)
    assert await bench.cache.feedback("acme", request_id="r1", wrong=True)
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), Miss)
    await bench.kept()
    found = await bench.cache.lookup(caller(), named("r2"), policy())
    assert isinstance(found, NearHit)
    assert found.veto == "feedback"


async def test_feedback_counts_once_and_only_from_the_tenant_that_was_served() -> None:
    bench = Bench()
    await bench.kept()
    await bench.cache.lookup(caller(), named("r1"), policy())
    assert not await bench.cache.feedback("other", request_id="r1", wrong=True)
    assert await bench.cache.feedback("acme", request_id="r1", wrong=False)
    assert not await bench.cache.feedback("acme", request_id="r1", wrong=True)
    assert isinstance(await bench.cache.lookup(caller(), named("r2"), policy()), SemanticHit)


class AwayStore(MemoryEntryStore):
    """A store that cannot delete while it is away."""

    is_away = True

    async def delete(self, tenant: str, entry_ids: Sequence[str]) -> int:
        if self.is_away:
            raise StoreUnavailable("away for the test")
        return await super().delete(tenant, entry_ids)


async def test_feedback_that_met_a_store_away_may_be_said_again() -> None:
    store = AwayStore(ManualClock(datetime.fromtimestamp(0, UTC)))
    bench = Bench(store=store)
    await bench.kept()
    await bench.cache.lookup(caller(), named("r1"), policy())
    with pytest.raises(StoreUnavailable):
        await bench.cache.feedback("acme", request_id="r1", wrong=True)
    assert bench.cache.evidence.reports()[0].judged == 0
    store.is_away = False
    assert await bench.cache.feedback("acme", request_id="r1", wrong=True)
    assert bench.cache.evidence.reports()[0].wrong == 1
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), Miss)


async def test_feedback_by_entry_or_on_an_exact_hit_removes_the_entry() -> None:
    bench = Bench()
    entry_id = await bench.kept()
    assert not await bench.cache.feedback("other", entry_id=entry_id, wrong=True)
    assert isinstance(await bench.cache.lookup(caller(), named("r1", CAPITAL), policy()), ExactHit)
    assert await bench.cache.feedback("acme", entry_id=entry_id, wrong=True)
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), Miss)
    await bench.kept()
    await bench.cache.lookup(caller(), named("r3", CAPITAL), policy())
    assert await bench.cache.feedback("acme", request_id="r3", wrong=True)
    assert isinstance(await bench.cache.lookup(caller(), request(), policy()), Miss)


async def test_near_hits_are_recorded_without_texts() -> None:
    bench = Bench()
    entry_id = await bench.kept("Sort these numbers: 7 3 9")
    await bench.cache.lookup(caller(), named("r1", "Sort these numbers: 7 3 8"), policy())
    (near,) = bench.cache.verification.hits.near_hits("acme")
    assert (near.entry_id, near.veto, near.score) == (entry_id, "number", None)
    assert bench.cache.verification.hits.near_hits("other") == []


@pytest.mark.parametrize(
    ("cached", "fresh", "same"),
    [
        ("Paris.", "paris", True),
        ("The capital is Paris.", "The capital is Paris, France.", True),
        ("It takes 5 days.", "It takes 6 days.", False),
        ("Paris.", "Boats float on water.", False),
        ("a " * 600, "b " * 600, None),
    ],
)
async def test_answers_are_compared_by_meaning_and_numbers(cached: str, fresh: str, same: bool | None) -> None:
    embedder = WordEmbedder(broken=same is None)
    assert await AnswerComparison(embedder)(cached, fresh) == same


def test_evidence_is_kept_in_a_file_and_a_broken_one_starts_afresh(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, table = tmp_path / "evidence.json", shipped_score()
    evidence = load_evidence(file, table, "words")
    evidence.judge("acme", 0.9, is_right=False)
    save_evidence(file, evidence)
    assert load_evidence(file, table, "words").reports() == evidence.reports()
    assert not caplog.text
    file.write_bytes(b"{")
    assert load_evidence(file, table, "words").reports() == []
    assert "local evidence not read" in caplog.text
    assert [one.name for one in tmp_path.iterdir()] == ["evidence.json"]


async def test_a_forgotten_tenant_leaves_no_evidence_no_served_hit_and_no_near_hit() -> None:
    bench = Bench()
    await bench.kept()
    await bench.kept("Sort these numbers: 7 3 9")
    for name, text in (("r1", PARAPHRASE), ("r2", "Sort these numbers: 7 3 8")):
        await bench.cache.lookup(caller(), named(name, text), policy())
        await bench.cache.lookup(caller("other"), named(name + "x", text), policy(tenant="other"))
    bench.cache.verification.forget("acme")
    assert [one.tenant for one in bench.cache.evidence.reports()] == ["other"]
    assert bench.cache.verification.hits.near_hits("acme") == []
    assert not await bench.cache.feedback("acme", request_id="r1", wrong=True)
