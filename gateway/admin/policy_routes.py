"""`/admin/policies`: which tenants there are, what applies to one, and reload."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass

from litestar import Router, get, post
from litestar.params import FromPath
from msgspec import Struct

from core.errors import InvalidRequest, UnknownName
from core.rules import TenantPolicy
from gateway.admin.access import OPERATOR, VIEWER, AdminRequest, actor_of
from gateway.admin.changes import Changes
from policies.loading import PolicySet
from policies.watching import ReloadResult


class PoliciesRefused(InvalidRequest):
    """The folder cannot be loaded; what was in force stays."""

    code = "invalid_configuration"
    http_status = 422


class TenantVersion(Struct, frozen=True):
    """One tenant and the version of its policy."""

    tenant: str
    version: str


class PolicyList(Struct, frozen=True):
    """All tenants, and the version of all policies together."""

    version: str
    tenants: list[TenantVersion]


class Reloaded(Struct, frozen=True):
    """The version now in force, and the tenants that were added, removed or changed."""

    version: str
    changed: list[str]


@dataclass(frozen=True, slots=True)
class PolicyAdministration:
    """What the policy routes need."""

    current: Callable[[], PolicySet]
    reload: Callable[[], Awaitable[ReloadResult]]
    changes: Changes

    async def reloaded(self, request: AdminRequest) -> Reloaded:
        """Load the folder now.

        Raises:
            PoliciesRefused: it cannot be loaded.
        """
        before = self.current().version
        async with self.changes.recording(actor_of(request), "policies.reload", "policies", before) as change:
            done = await self.reload()
            if done.problem is not None:
                raise PoliciesRefused(done.problem.message)
            change.after = done.version
        return Reloaded(done.version, list(done.changed))


def policy_router(policies: PolicyAdministration) -> Router:
    """Return the routes under `/admin/policies`."""

    @get("/", opt=VIEWER, sync_to_thread=False, summary="List tenants")
    def list_tenants() -> PolicyList:
        now = policies.current()
        return PolicyList(now.version, [TenantVersion(name, one.version) for name, one in now.policies.items()])

    @get("/{tenant:str}", opt=VIEWER, sync_to_thread=False, summary="Show the policy in force for a tenant")
    def show(tenant: FromPath[str]) -> dict[str, object]:
        policy = policies.current().get(tenant)
        if policy is None:
            raise UnknownName(f"The tenant {tenant[:64]!r} has no policy.", param="tenant")
        return policy_view(policy)

    @post("/reload", opt=OPERATOR, status_code=200, summary="Load the folder of policies again")
    async def reload(request: AdminRequest) -> Reloaded:
        return await policies.reloaded(request)

    return Router("/admin/policies", route_handlers=[list_tenants, show, reload], tags=["policies"])


def policy_view(policy: TenantPolicy) -> dict[str, object]:
    """Return the policy as plain values under the names of `core.rules`."""
    return {field.name: _plain(getattr(policy, field.name)) for field in fields(policy)}


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, frozenset):
        return sorted(_plain(one) for one in value)  # type: ignore[type-var]
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else str(value)
