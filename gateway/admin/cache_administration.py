"""What an administrator may do to the cache: count, report, remove, forget, judge hits, and take entries over."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from cache.control import CacheControl, Selector
from cache.entry_store import StoreUnavailable
from core.errors import InvalidRequest, Unavailable
from gateway.admin.access import AdminRequest, actor_of
from gateway.admin.cache_messages import (
    Exported,
    Feedback,
    Flush,
    Forget,
    ForgottenTenant,
    Import,
    Imported,
    Invalidation,
    NearHits,
    NearRow,
    Removed,
    Report,
    Stats,
    Taken,
    TenantEntries,
    TenantRow,
)
from gateway.changes import Changes
from policies.loading import PolicySet

T = TypeVar("T")
NAMED_IN_ANSWER = 100
RETRY_AFTER_S = 2.0


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

    def near_hits(self, tenant: str | None, limit: int) -> NearHits:
        """Return the last near hits, newest first."""
        found = self.control.cache.verification.hits.near_hits(tenant)[:limit]
        rows = [NearRow(one.at, one.tenant, one.entry_id, one.similarity, one.veto, one.score) for one in found]
        return NearHits(rows)

    async def export(self, tenant: str, after: str, limit: int) -> Exported:
        """Return a page of a tenant's entries."""
        return Exported(*await _answered(self.control.export(tenant, after, limit)))

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


async def _answered(work: Awaitable[T]) -> T:
    """Await what asks the store; a store that is away is 503 with a hint when to come again."""
    try:
        return await work
    except (OSError, StoreUnavailable) as problem:
        raise Unavailable(f"The cache's store cannot be used: {problem}", RETRY_AFTER_S) from problem
