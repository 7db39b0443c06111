"""`/admin/learning`: what the router learned of each tenant, and by hand promoting it or taking it back."""

from typing import Annotated

from litestar import Router, get, post
from litestar.params import JSONBody, QueryParameter
from msgspec import Meta, Struct

from gateway.admin.access import OPERATOR, VIEWER, AdminRequest, actor_of
from gateway.changes import Changes
from gateway.learning.router_learning import Learning
from router.learner import Status

Name = Annotated[str, Meta(min_length=1, max_length=200)]


class Whose(Struct, frozen=True, forbid_unknown_fields=True):
    """The tenant whose router is meant."""

    tenant: Name


class Learned(Struct, frozen=True):
    """How learning stands, by tenant."""

    tenants: list[Status]


def learning_router(learning: Learning, changes: Changes) -> Router:
    """Return the routes; what they change is on record."""

    @get("/", opt=VIEWER, summary="Show what was learned, and how its trial stands", sync_to_thread=False)
    def show(tenant: Annotated[str | None, QueryParameter(max_length=200)] = None) -> Learned:
        return Learned(learning.status(tenant))

    @post("/promote", opt=OPERATOR, status_code=200, summary="Put the candidate in force, if its evidence suffices")
    async def promote(request: AdminRequest, data: JSONBody[Whose]) -> Status:
        return await learning.change(data.tenant, "promote", actor_of(request), changes)

    @post("/rollback", opt=OPERATOR, status_code=200, summary="Put the plain score back in force")
    async def rollback(request: AdminRequest, data: JSONBody[Whose]) -> Status:
        return await learning.change(data.tenant, "rollback", actor_of(request), changes)

    return Router("/admin/learning", route_handlers=[show, promote, rollback], tags=["learning"])
