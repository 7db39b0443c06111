"""`/admin/budgets`: what tenants have spent, and how an operator grants more or makes a window begin anew."""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Annotated, Protocol

from litestar import Router, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from core.errors import InvalidRequest, UnknownName
from core.money import nano_usd
from gateway.admin.access import OPERATOR, VIEWER, AdminRequest, actor_of
from gateway.changes import Changes
from gateway.reporting.budget_line import BudgetLine
from policies.loading import PolicySet

Name = Annotated[str, Meta(min_length=1, max_length=200)]
GrantId = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")]


class Selector(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which budget of a tenant: what is left out must not leave a choice."""

    window: Name | None = None
    key_id: Name | None = None
    user: Name | None = None
    tier: Name | None = None
    rolling: bool | None = None


class Grant(Selector, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Add to a limit in its present window; the same `grant_id` never grants twice."""

    amount_usd: Annotated[str, Meta(pattern=r"^-?[0-9]{1,9}(\.[0-9]{1,9})?$")]
    grant_id: GrantId | None = None


class Reset(Selector, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Grant what was spent in the present window; the same `grant_id` never does it twice."""

    grant_id: GrantId | None = None


class BudgetList(Struct, frozen=True):
    """Budgets in their present windows."""

    budgets: list[BudgetLine]


class BudgetOperations(Protocol):
    """What an operator may do to the ledger while it runs."""

    async def balances(self, tenant: str) -> tuple[BudgetLine, ...]:
        """Return every budget of the tenant; raises Unavailable when the store is away."""
        ...

    async def grant(self, tenant: str, which: Selector, amount_nano_usd: int, grant_id: str) -> None:
        """Raise a limit in its present window, once per `grant_id`.

        Raises:
            InvalidRequest: the selector fits no budget or several, or the amount is beyond reason.
            Unavailable: the store is away.
        """
        ...

    async def reset(self, tenant: str, which: Selector, grant_id: str) -> None:
        """Grant what was spent in the present window, once per `grant_id`; raises as `grant`."""
        ...


@dataclass(frozen=True, slots=True)
class BudgetAdministration:
    """What the budget routes need."""

    operations: BudgetOperations
    policies: Callable[[], PolicySet]
    changes: Changes

    async def of(self, tenants: tuple[str, ...]) -> BudgetList:
        """Return the budgets of some tenants."""
        return BudgetList([line for tenant in tenants for line in await self.operations.balances(tenant)])

    async def grant(self, request: AdminRequest, tenant: str, grant: Grant) -> BudgetList:
        """Add to a limit."""
        self.check(tenant)
        amount_nano_usd = _amount(grant.amount_usd)
        grant_id = grant.grant_id or secrets.token_hex(16)
        before = await self.operations.balances(tenant)
        async with self.changes.recording(actor_of(request), "budget.grant", tenant, before) as change:
            await self.operations.grant(tenant, grant, amount_nano_usd, grant_id)
            change.after = await self.operations.balances(tenant)
        return BudgetList(list(change.after))

    async def reset(self, request: AdminRequest, tenant: str, reset: Reset) -> BudgetList:
        """Make the present window begin anew."""
        self.check(tenant)
        grant_id = reset.grant_id or secrets.token_hex(16)
        before = await self.operations.balances(tenant)
        async with self.changes.recording(actor_of(request), "budget.reset", tenant, before) as change:
            await self.operations.reset(tenant, reset, grant_id)
            change.after = await self.operations.balances(tenant)
        return BudgetList(list(change.after))

    def check(self, tenant: str) -> None:
        """Refuse a tenant without a policy."""
        if self.policies().get(tenant) is None:
            raise UnknownName(f"The tenant {tenant[:64]!r} has no policy.", param="tenant")


def budget_router(budgets: BudgetAdministration) -> Router:
    """Return the routes under `/admin/budgets`."""

    @get("/", opt=VIEWER, summary="Show all budgets")
    async def show_all() -> BudgetList:
        return await budgets.of(budgets.policies().tenants())

    @get("/{tenant:str}", opt=VIEWER, summary="Show the budgets of a tenant")
    async def show(tenant: FromPath[str]) -> BudgetList:
        budgets.check(tenant)
        return await budgets.of((tenant,))

    @post("/{tenant:str}/grant", opt=OPERATOR, status_code=200, summary="Add to a limit in its present window")
    async def grant(request: AdminRequest, tenant: FromPath[str], data: JSONBody[Grant]) -> BudgetList:
        return await budgets.grant(request, tenant, data)

    @post("/{tenant:str}/reset", opt=OPERATOR, status_code=200, summary="Make the present window begin anew")
    async def reset(request: AdminRequest, tenant: FromPath[str], data: JSONBody[Reset]) -> BudgetList:
        return await budgets.reset(request, tenant, data)

    return Router("/admin/budgets", route_handlers=[show_all, show, grant, reset], tags=["budgets"])


def _amount(text: str) -> int:
    try:
        return nano_usd(Decimal(text))
    except (ValueError, InvalidOperation) as problem:
        raise InvalidRequest(f"{text!r} is not an amount in USD.", param="amount_usd") from problem
