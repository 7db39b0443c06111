"""`/admin/cache`: counts, the bound on wrong hits, near hits, removal of entries or tenants, feedback, export."""

from typing import Annotated

from litestar import Router, get, post
from litestar.params import JSONBody, QueryParameter

from gateway.admin.access import OPERATOR, OWNER, VIEWER, AdminRequest
from gateway.admin.cache_administration import CacheAdministration
from gateway.admin.cache_messages import (
    MOST_EXPORTED,
    Exported,
    Feedback,
    Flush,
    Forget,
    ForgottenTenant,
    Import,
    Imported,
    Invalidation,
    NearHits,
    Removed,
    Report,
    Stats,
    Taken,
)


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
        return cache.near_hits(tenant, limit)

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
        return await cache.export(tenant, after, limit)

    @post("/import", opt=OWNER, status_code=200, summary="Keep exported entries")
    async def take_over(request: AdminRequest, data: JSONBody[Import]) -> Imported:
        return await cache.take_over(request, data)

    routes = [stats, report, near_hits, invalidate, flush, forget, feedback, export, take_over]
    return Router("/admin/cache", route_handlers=routes, tags=["cache"])
