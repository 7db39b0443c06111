"""`/admin/store` and `/admin/audit`: whether state can be read and written, and who changed what."""

from typing import Annotated

from litestar import Router, get
from litestar.params import QueryParameter
from msgspec import Struct

from gateway.admin.access import OPERATOR, VIEWER
from gateway.changes import Changes
from gateway.parts.probing import StoreProbe, StoreState
from policies.audit import AuditEntry

MAX_LISTED = 1000


class AuditRow(Struct, frozen=True):
    """One change; `before` and `after` are keyed digests."""

    seq: int
    at: str
    actor: str
    role: str
    source: str
    action: str
    target: str
    before: str | None
    after: str | None
    outcome: str


class AuditPage(Struct, frozen=True):
    """The newest changes, oldest first."""

    entries: list[AuditRow]


class AuditVerdict(Struct, frozen=True):
    """Whether the chain holds; note `head` and pass it to a later `headgate audit verify`."""

    valid: bool
    rows: int
    head: str
    problem: str | None


def state_router(probe: StoreProbe, changes: Changes) -> Router:
    """Return the routes of state and history."""

    @get("/store", opt=VIEWER, summary="Show whether the stores answer")
    async def store() -> StoreState:
        return await probe()

    @get("/audit", opt=OPERATOR, summary="Show the newest changes")
    async def audit(limit: Annotated[int, QueryParameter(ge=1, le=MAX_LISTED)] = 100) -> AuditPage:
        return AuditPage([audit_row(entry) for entry in await changes.entries(limit)])

    @get("/audit/verify", opt=OPERATOR, summary="Check the chain of the audit log")
    async def verify() -> AuditVerdict:
        verdict = await changes.verify()
        return AuditVerdict(verdict.problem is None, verdict.rows, verdict.head, verdict.problem)

    return Router("/admin", route_handlers=[store, audit, verify], tags=["state"])


def audit_row(entry: AuditEntry) -> AuditRow:
    """Return what is shown of an entry."""
    return AuditRow(
        seq=entry.seq,
        at=entry.at,
        actor=entry.actor,
        role=entry.role,
        source=entry.source,
        action=entry.action,
        target=entry.target,
        before=entry.before,
        after=entry.after,
        outcome=entry.outcome,
    )
