"""`/admin/decisions`: the record of one decision, made again and compared."""

import asyncio
from typing import Annotated

from litestar import Router, get
from litestar.params import PathParameter

from core.errors import UnknownName
from gateway.admin.access import VIEWER
from gateway.reporting.decision_words import sentences
from gateway.reporting.decisions import Decisions, Told
from router.receipt import decode_receipt


class DecisionView(Told, frozen=True):
    """A decision as it is told, and the same in sentences."""

    words: tuple[str, ...]


def decision_router(decisions: Decisions) -> Router:
    """Return the routes under `/admin/decisions`."""

    @get("/{request_id:str}", opt=VIEWER, summary="Show a decision, and whether deciding again gives the same")
    async def show(request_id: Annotated[str, PathParameter(max_length=100)]) -> DecisionView:
        told = await asyncio.to_thread(decisions.find, request_id)
        if told is None:
            raise UnknownName(f"No request {request_id[:64]!r} is known here.", param="request_id")
        return DecisionView(
            told.id, told.decision, told.identical, told.differs, told.changed, told.request, _words(told)
        )

    return Router("/admin/decisions", route_handlers=[show], tags=["decisions"])


def _words(told: Told) -> tuple[str, ...]:
    if told.decision is None or told.identical is None:
        return ()
    try:
        return tuple(sentences(decode_receipt(bytes(told.decision))))
    except ValueError:
        return ()
