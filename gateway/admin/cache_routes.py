"""`/admin/cache`: counts, the bound on wrong hits, near hits, removal of entries or tenants, feedback, export."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, TypeVar

from litestar import Router, get, post
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, Struct

from cache.control import CacheControl, ExportedEntry, Selector
from cache.entry_store import StoreUnavailable
from core.errors import InvalidRequest, Unavailable
from gateway.admin.access import OPERATOR, OWNER, VIEWER, AdminRequest, actor_of
from gateway.admin.changes import Changes
from policies.loading import PolicySet

T = TypeVar("T")
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Names = Annotated[list[Name], Meta(max_length=1_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
NAMED_IN_ANSWER = 100
MOST_EXPORTED = 200
RETRY_AFTER_S = 2.0


class Invalidation(Struct, frozen=True, forbid_unknown_fields=True):
    """Which entries of a tenant are to go: all conditions hold, at least one is given."""

    tenant: Name
    entry_ids: Names = []
    model: Name | None = None
    older_than_s: Seconds | None = None
    tag: Name | None = None
    dry_run: bool = False


class Flush(Struct, frozen=True, forbid_unknown_fields=True):
    """Remove all entries of a tenant, or of all tenants when none is named."""

    tenant: Name | None = None
    dry_run: bool = False


class Forget(Struct, frozen=True, forbid_unknown_fields=True):
    """Remove all that the cache has of a tenant."""

    tenant: Name


class ForgottenTenant(Struct, frozen=True):
    """What went: entries, and the key that opened them if there was one.

    `has_policy` warns that the tenant may still ask, so that new entries are made for it.
    """

    tenant: str
    entries: int
    key_shredded: bool
    has_policy: bool


class Removed(Struct, frozen=True):
    """How many entries went, or would go, and the first of their ids."""

    count: int
    dry_run: bool
    entry_ids: list[str]


class Feedback(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody says of a hit: named by its request, or by its entry from `x-headgate-cache-entry`."""

    tenant: Name
    wrong: bool
    request_id: Name | None = None
    entry_id: Name | None = None


class Taken(Struct, frozen=True):
    """Whether there was such a hit or entry."""

    known: bool


class Import(Struct, frozen=True, forbid_unknown_fields=True):
    """Exported entries of one tenant."""

    tenant: Name
    entries: Annotated[list[ExportedEntry], Meta(max_length=MOST_EXPORTED)]


class Imported(Struct, frozen=True):
    """How many entries were kept; expired ones are not."""

    kept: int


class Exported(Struct, frozen=True):
    """A page of entries, and the id to go on after, null at the end."""

    entries: list[ExportedEntry]
    after: str | None


class TenantEntries(Struct, frozen=True):
    """How many entries a tenant has."""

    tenant: str
    entries: int


class Stats(Struct, frozen=True):
    """Look-ups of this process since its start by outcome, where the index lies, and each tenant's entries."""

    exact: int
    semantic: int
    near: int
    miss: int
    bypass: int
    stored: int
    failed: int
    index: str
    tenants: list[TenantEntries]


class TenantRow(Struct, frozen=True):
    """One tenant: hit rate and the bound on wrong hits, both over requests that were looked up.

    `threshold` is null while only exact hits are served; `source` says whose calibration is in force.
    """

    tenant: str
    requests: int
    exact: int
    semantic: int
    near: int
    hit_ratio: float
    judged: int
    wrong: int
    threshold: float | None
    source: str
    false_hit_bound: float
    max_false_hit_rate: float


class Report(Struct, frozen=True):
    """All tenants that asked."""

    tenants: list[TenantRow]


class NearRow(Struct, frozen=True):
    """Something similar that was not served, and why."""

    at: datetime
    tenant: str
    entry_id: str
    similarity: float
    veto: str
    score: float | None


class NearHits(Struct, frozen=True):
    """The last near hits, newest first."""

    near: list[NearRow]


@dataclass(frozen=True, slots=True)
class CacheAdministration:
    """What the cache routes need."""

    control: CacheControl
    policies: Callable[[], PolicySet]
    changes: Changes
    save_evidence: Callable[[], None]

    async def stats(self) -> Stats:
        """Return the counts."""
        names = await _answered(self.control.tenants())
        tenants = [TenantEntries(name, await _answered(self.control.count(name))) for name in names]
        counts = self.control.cache.stats
        return Stats(
            counts.exact,
            counts.semantic,
            counts.near,
            counts.miss,
            counts.bypass,
            counts.stored,
            counts.failed,
            self.control.index_place,
            tenants,
        )

    def report(self, tenant: str | None) -> Report:
        """Return hit rates and bounds."""
        policies = self.policies().policies
        rates = {name: policy.cache.max_false_hit_rate for name, policy in policies.items()}
        waiting = frozenset(name for name, policy in policies.items() if policy.cache.exact_only_until_calibrated)
        rows = [
            TenantRow(
                tenant=one.tenant,
                requests=one.requests,
                exact=one.exact,
                semantic=one.semantic,
                near=one.near,
                hit_ratio=(one.exact + one.semantic) / max(1, one.requests),
                judged=one.judged,
                wrong=one.wrong,
                threshold=one.threshold,
                source=one.source,
                false_hit_bound=one.bound,
                max_false_hit_rate=rates.get(one.tenant, 0.0),
            )
            for one in self.control.cache.evidence.reports(rates, waiting)
            if tenant in (None, one.tenant)
        ]
        return Report(rows)

    async def invalidate(self, request: AdminRequest, wanted: Invalidation) -> Removed:
        """Remove what is meant; an invalidation without any condition is refused, a flush says so plainly."""
        selector = Selector(frozenset(wanted.entry_ids), wanted.model, wanted.older_than_s, wanted.tag)
        if selector.is_everything:
            raise InvalidRequest("Give `entry_ids`, `tag`, `model` or `older_than_s`; to remove everything, flush.")
        return await self._remove(request, "cache.invalidate", wanted.tenant, selector, wanted.dry_run)

    async def flush(self, request: AdminRequest, wanted: Flush) -> Removed:
        """Remove everything of a tenant, or of all."""
        names = [wanted.tenant] if wanted.tenant is not None else await _answered(self.control.tenants())
        parts = [await self._remove(request, "cache.flush", name, Selector(), wanted.dry_run) for name in names]
        ids = [entry_id for part in parts for entry_id in part.entry_ids]
        return Removed(sum(part.count for part in parts), wanted.dry_run, ids[:NAMED_IN_ANSWER])

    async def forget(self, request: AdminRequest, wanted: Forget) -> ForgottenTenant:
        """Remove everything of a tenant, what was learned and its key too."""
        async with self.changes.recording(actor_of(request), "cache.forget_tenant", wanted.tenant) as change:
            gone = await _answered(self.control.forget(wanted.tenant))
            await asyncio.to_thread(self.save_evidence)
            change.after = {"entries": gone.entries, "key_shredded": gone.is_key_shredded}
        has_policy = self.policies().get(wanted.tenant) is not None
        return ForgottenTenant(wanted.tenant, gone.entries, gone.is_key_shredded, has_policy)

    async def feedback(self, request: AdminRequest, wanted: Feedback) -> Taken:
        """Take somebody's word on a hit."""
        if (wanted.request_id is None) == (wanted.entry_id is None):
            raise InvalidRequest("Name the hit by `request_id` or by `entry_id`: give exactly one of them.")
        async with self.changes.recording(actor_of(request), "cache.feedback", wanted.tenant) as change:
            known = await _answered(
                self.control.cache.feedback(
                    wanted.tenant, request_id=wanted.request_id, entry_id=wanted.entry_id, wrong=wanted.wrong
                )
            )
            change.after = {"wrong": wanted.wrong, "known": known}
        return Taken(known)

    async def take_over(self, request: AdminRequest, wanted: Import) -> Imported:
        """Keep exported entries."""
        async with self.changes.recording(actor_of(request), "cache.import", wanted.tenant) as change:
            try:
                kept = await _answered(self.control.take_over(wanted.tenant, wanted.entries))
            except ValueError as problem:
                raise InvalidRequest(f"Cannot import: {problem}.", param="entries") from problem
            change.after = {"kept": kept}
        return Imported(kept)

    async def _remove(
        self, request: AdminRequest, action: str, tenant: str, selector: Selector, dry_run: bool
    ) -> Removed:
        if dry_run:
            found = await _answered(self.control.invalidate(tenant, selector, dry_run=True))
        else:
            async with self.changes.recording(actor_of(request), action, tenant) as change:
                found = await _answered(self.control.invalidate(tenant, selector))
                change.after = {"removed": len(found)}
        return Removed(len(found), dry_run, found[:NAMED_IN_ANSWER])


def cache_router(cache: CacheAdministration) -> Router:
    """Return the routes under `/admin/cache`."""

    @get("/stats", opt=VIEWER, summary="Count look-ups and entries")
    async def stats() -> Stats:
        return await cache.stats()

    @get("/report", opt=VIEWER, summary="Show hit rates and the bound on wrong hits")
    async def report(tenant: Annotated[str | None, QueryParameter(max_length=200)] = None) -> Report:
        return cache.report(tenant)

    @get("/near-hits", opt=VIEWER, summary="List what was similar and not served")
    async def near_hits(
        tenant: Annotated[str | None, QueryParameter(max_length=200)] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=500)] = 100,
    ) -> NearHits:
        found = cache.control.cache.verification.hits.near_hits(tenant)[:limit]
        return NearHits(
            [NearRow(one.at, one.tenant, one.entry_id, one.similarity, one.veto, one.score) for one in found]
        )

    @post("/invalidate", opt=OPERATOR, status_code=200, summary="Remove entries by id, tag, model or age")
    async def invalidate(request: AdminRequest, data: JSONBody[Invalidation]) -> Removed:
        return await cache.invalidate(request, data)

    @post("/flush", opt=OPERATOR, status_code=200, summary="Remove all entries")
    async def flush(request: AdminRequest, data: JSONBody[Flush]) -> Removed:
        return await cache.flush(request, data)

    @post("/forget", opt=OWNER, status_code=200, summary="Remove all of a tenant: entries, key, what was learned")
    async def forget(request: AdminRequest, data: JSONBody[Forget]) -> ForgottenTenant:
        return await cache.forget(request, data)

    @post("/feedback", opt=OPERATOR, status_code=200, summary="Say whether a hit was wrong")
    async def feedback(request: AdminRequest, data: JSONBody[Feedback]) -> Taken:
        return await cache.feedback(request, data)

    @get("/export", opt=OWNER, summary="Export entries with their texts")
    async def export(
        tenant: Annotated[str, QueryParameter(max_length=200)],
        after: Annotated[str, QueryParameter(max_length=200)] = "",
        limit: Annotated[int, QueryParameter(ge=1, le=MOST_EXPORTED)] = MOST_EXPORTED,
    ) -> Exported:
        entries, following = await _answered(cache.control.export(tenant, after, limit))
        return Exported(entries, following)

    @post("/import", opt=OWNER, status_code=200, summary="Keep exported entries")
    async def take_over(request: AdminRequest, data: JSONBody[Import]) -> Imported:
        return await cache.take_over(request, data)

    routes = [stats, report, near_hits, invalidate, flush, forget, feedback, export, take_over]
    return Router("/admin/cache", route_handlers=routes, tags=["cache"])


async def _answered(work: Awaitable[T]) -> T:
    """Await what asks the store; a store that is away is 503 with a hint when to come again."""
    try:
        return await work
    except (OSError, StoreUnavailable) as problem:
        raise Unavailable(f"The cache's store cannot be used: {problem}", RETRY_AFTER_S) from problem
