"""Look up and keep answers: bypass rules, raw exact, normalised exact, then semantic with the guard.

Every hit reads its entry again and checks tenant, scope and expiry. On any failure of the encoder, the index or the
store the cache fails open: a miss and one warning, never an error to the caller and never a wrong answer.

The threshold of a semantic hit follows the tenant's `max_false_hit_rate` and what its own judged hits say
(`cache.local_evidence`): a sampled share of hits is verified in the shadow, near hits are compared with the fresh
answer, and feedback removes a wrong entry and forbids the pair.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec

from cache.eligibility import RequestRefusal, refuse_answer, refuse_request
from cache.embedder import Embedder, EncoderUnavailable
from cache.entry_store import EntryStore, StoredVector
from cache.fingerprint import CacheKeys, Fingerprinter
from cache.guard import Guard, Served
from cache.local_evidence import LocalEvidence
from cache.served import NearRecord, ServedHit
from cache.vector_index import Neighbour, VectorIndex
from cache.verification import Verification
from core.cached import Bypass, CachedAnswer, Entry, ExactHit, Found, Miss, NearHit, SemanticHit, Vector
from core.chat import ChatRequest
from core.clock import Clock
from core.identity import Caller, new_entry_id
from core.rules import AutoTarget, EffectivePolicy

log = logging.getLogger(__name__)

_NEIGHBOURS = 4
_NEAR_SIMILARITY = 0.8
_WIDEST_MARGIN = 1.0
_LATELY = 1_024


class _Asked(msgspec.Struct):
    """What was worked out about a request, which is asked about when it is looked up, joined and kept."""

    request: ChatRequest
    policy: EffectivePolicy
    refusal: RequestRefusal | None
    caller: Caller | None = None
    keys: CacheKeys | None = None


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What look-ups found since the start, and how many entries were stored."""

    exact: int = 0
    semantic: int = 0
    near: int = 0
    miss: int = 0
    bypass: int = 0
    stored: int = 0
    failed: int = 0


class SemanticCache:
    """The cache of one gateway process."""

    def __init__(
        self,
        fingerprinter: Fingerprinter,
        store: EntryStore,
        index: VectorIndex,
        embedder: Embedder,
        clock: Clock,
        guard: Guard | None = None,
        evidence: LocalEvidence | None = None,
    ) -> None:
        self._fingerprinter = fingerprinter
        self._store = store
        self._index = index
        self._embedder = embedder
        self._clock = clock
        self._guard = guard or Guard()
        self.verification = Verification(evidence or LocalEvidence(self._guard.table, embedder.fingerprint))
        self._search_thread = ThreadPoolExecutor(1, thread_name_prefix="headgate-cache-search")
        self._counts = dict.fromkeys(CacheStats.__slots__, 0)
        self._lately: OrderedDict[str, _Asked] = OrderedDict()

    @property
    def evidence(self) -> LocalEvidence:
        """Return what the tenants' judged hits say."""
        return self.verification.evidence

    @property
    def stats(self) -> CacheStats:
        """Return the counts so far."""
        return CacheStats(**self._counts)

    async def load(self) -> int:
        """Rebuild the index from the store's live entries; return how many vectors fit the encoder in use."""
        loop, loaded = asyncio.get_running_loop(), 0
        try:
            async for batch in self._store.live():
                fitting = [one for one in batch if one.encoder == self._embedder.fingerprint]
                await loop.run_in_executor(self._search_thread, self._take_in, fitting)
                loaded += len(fitting)
        except Exception as problem:
            self._failed("rebuild the index", problem)
        return loaded

    def _take_in(self, vectors: Sequence[StoredVector]) -> None:
        for one in vectors:
            self._index.add(one.scope, one.entry_id, one.vector)

    async def lookup(self, caller: Caller, request: ChatRequest, policy: EffectivePolicy) -> Found:
        """Return what may be served for `request`; what is no hit carries the vector when the router needs it."""
        refusal = self._asked(request, policy).refusal
        if refusal is not None:
            self._count("bypass")
            self.evidence.count(caller.tenant, "bypass")
            return Bypass(refusal, await self._vector_for_router(request, policy))
        try:
            found = await self._find(caller, request, policy)
        except Exception as problem:
            self._failed("look up", problem)
            found = Miss()
        outcome = _COUNTER[type(found)]
        self._count(outcome)
        self.verification.looked_up(caller, request, policy, found, outcome)
        if isinstance(found, Miss) and found.vector is None and isinstance(policy.target, AutoTarget):
            return Miss(await self._vector_for_router(request, policy))
        return found

    def flight_key(self, caller: Caller, request: ChatRequest, policy: EffectivePolicy) -> str | None:
        """Return what identical requests in flight share; None where an answer may not be shared or is to be fresh."""
        if self._asked(request, policy).refusal is not None or request.demands.cache.no_store:
            return None
        exact = self._keys(caller, request, policy).exact
        return f"{exact}:{int(request.stream)}{int(request.include_usage)}"

    async def store(
        self, caller: Caller, request: ChatRequest, policy: EffectivePolicy, answer: CachedAnswer
    ) -> str | None:
        """Keep `answer` unless a rule forbids it; return the entry's id or None."""
        self.verification.answered(request, answer)
        refusal = self._asked(request, policy).refusal
        if refusal not in (None, "refresh") or refuse_answer(request, policy, answer) is not None:
            return None
        try:
            return await self._keep(caller, request, policy, answer)
        except Exception as problem:
            self._failed("store", problem)
            return None

    async def feedback(
        self, tenant: str, *, request_id: str | None = None, entry_id: str | None = None, wrong: bool
    ) -> bool:
        """Take a tenant's word on a hit, named by its request (once) or its entry; return whether there was one.

        A wrong entry is removed at once; where the request is known, its pair of prompts is never served again and the
        tenant's threshold learns of it.

        Raises:
            StoreUnavailable: the store is away and the entry may be served again; nothing was judged, so say it again.
        """
        hit = None if request_id is None else self.verification.hits.find(tenant, request_id)
        entry_id = entry_id if hit is None else hit.entry_id
        removed = 0 if entry_id is None or not wrong else await self.remove(tenant, [entry_id])
        if request_id is not None:
            hit = self.verification.take(tenant, request_id, wrong=wrong)
        return removed > 0 or hit is not None

    async def remove(self, tenant: str, entry_ids: Sequence[str]) -> int:
        """Remove entries of a tenant from index and store; return how many the store had.

        Raises:
            StoreUnavailable: the store is away.
        """
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._search_thread, self._index.remove, entry_ids)
        return await self._store.delete(tenant, entry_ids)

    async def keep(self, entry: Entry) -> bool:
        """Put an entry into the store and, when it was made by the encoder in use, into the index."""
        gone = await self._store.put(entry)
        if gone or entry.vector is not None:
            await self._index_changes(entry, gone)
        if entry.entry_id in gone:
            return False
        self._count("stored")
        return True

    async def close(self) -> None:
        """Stop the checks, the encoder, the search thread and the store."""
        await self.verification.close()
        await self._embedder.close()
        self._search_thread.shutdown(wait=True)
        await self._store.close()

    async def _find(self, caller: Caller, request: ChatRequest, policy: EffectivePolicy) -> Found:
        keys = self._keys(caller, request, policy)
        for key in (keys.exact, keys.normalised):
            entry = await self._store.read(caller.tenant, key)
            if entry is not None and self._may_serve(entry, caller, request, keys):
                return ExactHit(entry, self._age_s(entry))
        if not (policy.tenant_policy.cache.semantic and keys.is_fuzzy):
            return Miss()
        vector = await self._embed(request.last_user_text)
        return Miss() if vector is None else await self._find_similar(caller, request, policy, keys, vector)

    async def _find_similar(
        self, caller: Caller, request: ChatRequest, policy: EffectivePolicy, keys: CacheKeys, vector: Vector
    ) -> Found:
        rules = policy.tenant_policy.cache
        standing = self.evidence.standing(
            caller.tenant,
            rules.max_false_hit_rate,
            exact_only_until_calibrated=rules.exact_only_until_calibrated,
        )
        threshold = max(standing.threshold, request.demands.cache.min_score or 0.0)
        neighbours = await self._neighbours(keys.scope, vector)
        near: NearRecord | None = None
        for neighbour in neighbours:
            if neighbour is not neighbours[0]:
                await asyncio.sleep(0)  # a long pair takes milliseconds to judge: others have their turn between two
            entry = await self._store.read(caller.tenant, neighbour.entry_id)
            if entry is None or not self._may_serve(entry, caller, request, keys):
                continue
            if self.evidence.is_vetoed(caller.tenant, entry.normalised_key, keys.normalised):
                near = near or self._near(caller, neighbour, "feedback", None)
                continue
            verdict = self._guard.judge(
                entry.prompt,
                request.last_user_text or "",
                neighbour.similarity,
                threshold,
                margin=_margin(neighbour, neighbours),
            )
            if verdict.score is not None:
                hit = ServedHit(caller.tenant, entry.entry_id, entry.normalised_key, keys.normalised, verdict.score)
                self.verification.candidate(request.request_id, hit, entry.answer.content)
            if isinstance(verdict, Served):
                return SemanticHit(entry, self._age_s(entry), neighbour.similarity, verdict.score)
            if near is None and neighbour.similarity >= _NEAR_SIMILARITY:
                near = self._near(caller, neighbour, verdict.veto, verdict.score)
        if near is None:
            return Miss(vector)
        self.verification.hits.near(near)
        return NearHit(near.entry_id, near.similarity, near.veto, vector)

    def _near(self, caller: Caller, neighbour: Neighbour, veto: str, score: float | None) -> NearRecord:
        return NearRecord(self._clock.now(), caller.tenant, neighbour.entry_id, neighbour.similarity, veto, score)

    async def _neighbours(self, scope: str, vector: Vector) -> list[Neighbour]:
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._search_thread, self._index.search, scope, vector, _NEIGHBOURS)
        except Exception as problem:
            self._failed("search", problem)
            return []

    def _may_serve(self, entry: Entry, caller: Caller, request: ChatRequest, keys: CacheKeys) -> bool:
        """Whether the entry is this tenant's, of this scope, alive, and as young as the caller asks."""
        if entry.tenant != caller.tenant or entry.scope != keys.scope or entry.expires_at_s <= self._now_s():
            return False
        max_age_s = request.demands.cache.max_age_s
        return max_age_s is None or self._age_s(entry) <= max_age_s

    async def _keep(
        self, caller: Caller, request: ChatRequest, policy: EffectivePolicy, answer: CachedAnswer
    ) -> str | None:
        keys = self._keys(caller, request, policy)
        is_semantic = policy.tenant_policy.cache.semantic and keys.is_fuzzy
        now_s = self._now_s()
        entry = Entry(  # by position: see `core.trace`
            new_entry_id(),  # entry_id
            caller.tenant,
            keys.scope,
            keys.exact,  # exact_key
            keys.normalised,  # normalised_key
            request.last_user_text or "",  # prompt
            await self._embed(request.last_user_text) if is_semantic else None,  # vector
            self._embedder.fingerprint,  # encoder
            answer,
            now_s,  # created_at_s
            now_s + policy.tenant_policy.cache.ttl_s,  # expires_at_s
            request.demands.cache.tags,
        )
        return entry.entry_id if await self.keep(entry) else None

    async def _index_changes(self, entry: Entry, gone: tuple[str, ...]) -> None:
        loop = asyncio.get_running_loop()
        try:
            if gone:
                await loop.run_in_executor(self._search_thread, self._index.remove, gone)
            is_fitting = entry.encoder == self._embedder.fingerprint and entry.entry_id not in gone
            if entry.vector is not None and is_fitting:
                await loop.run_in_executor(
                    self._search_thread, self._index.add, entry.scope, entry.entry_id, entry.vector
                )
        except Exception as problem:
            self._failed("index", problem)

    async def _vector_for_router(self, request: ChatRequest, policy: EffectivePolicy) -> Vector | None:
        """Return the vector of the last user text, or of its beginning where the whole exceeds the window."""
        if not isinstance(policy.target, AutoTarget):
            return None
        text = request.last_user_text
        try:
            while text and self._embedder.is_ready():
                (vector,) = await self._embedder.embed([text])
                if vector is not None:
                    return vector
                text = text[: len(text) // 2]
        except EncoderUnavailable as problem:
            self._failed("embed", problem)
        return None

    async def _embed(self, text: str | None) -> Vector | None:
        """Return the vector of a text; None without a text, an encoder, or room in its window."""
        if not text or not self._embedder.is_ready():
            return None
        try:
            return (await self._embedder.embed([text]))[0]
        except EncoderUnavailable as problem:
            self._failed("embed", problem)
            return None

    def _asked(self, request: ChatRequest, policy: EffectivePolicy) -> _Asked:
        """Return what is known of a request, with the reason why the cache is not for it."""
        asked = self._lately.get(request.request_id)
        if asked is None or asked.request is not request or asked.policy is not policy:
            asked = self._lately[request.request_id] = _Asked(request, policy, refuse_request(request, policy))
            if len(self._lately) > _LATELY:
                self._lately.popitem(last=False)
        return asked

    def _keys(self, caller: Caller, request: ChatRequest, policy: EffectivePolicy) -> CacheKeys:
        asked = self._asked(request, policy)
        if asked.keys is None or asked.caller is not caller:
            asked.caller, asked.keys = caller, self._fingerprinter.keys(caller, request, policy)
        return asked.keys

    def _age_s(self, entry: Entry) -> float:
        return max(0.0, self._now_s() - entry.created_at_s)

    def _now_s(self) -> float:
        return self._clock.unix_s()

    def _count(self, name: str) -> None:
        self._counts[name] += 1

    def _failed(self, doing: str, problem: Exception) -> None:
        self._count("failed")
        log.warning("cache failed open", extra={"doing": doing, "error": f"{type(problem).__name__}: {problem}"})


def _margin(neighbour: Neighbour, neighbours: Sequence[Neighbour]) -> float:
    """Return how much nearer the neighbour is than the nearest other one."""
    others = [one.similarity for one in neighbours if one.entry_id != neighbour.entry_id]
    return neighbour.similarity - max(others) if others else _WIDEST_MARGIN


_COUNTER: dict[type, str] = {
    ExactHit: "exact",
    SemanticHit: "semantic",
    NearHit: "near",
    Miss: "miss",
    Bypass: "bypass",
}
