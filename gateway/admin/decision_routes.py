"""`/admin/decisions`: the record of one decision, made again and compared."""

import asyncio
from typing import Annotated

from litestar import Router, get
from litestar.params import PathParameter

from core.errors import UnknownName
from gateway.admin.access import VIEWER
from gateway.decisions import Decisions, Told


def decision_router(decisions: Decisions) -> Router:
    """Return the routes under `/admin/decisions`."""

    @get("/{request_id:str}", opt=VIEWER, summary="Show a decision, and whether deciding again gives the same")
    async def show(request_id: Annotated[str, PathParameter(max_length=100)]) -> Told:
        told = await asyncio.to_thread(decisions.find, request_id)
        if told is None:
            raise UnknownName(f"No request {request_id[:64]!r} is known here.", param="request_id")
        return told

    return Router("/admin/decisions", route_handlers=[show], tags=["decisions"])
