"""`/admin/policies`: which tenants there are, what applies to one, what a change would change, and reload."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated

from litestar import Router, get, post
from litestar.params import FromPath, JSONBody
from msgspec import Meta, Struct

from core.errors import ConfigurationError, InvalidRequest, UnknownName
from core.rules import TenantPolicy
from gateway.admin.access import OPERATOR, VIEWER, AdminRequest, actor_of
from gateway.changes import Changes
from gateway.whatif.candidate_policies import CandidatePolicies
from gateway.whatif.comparison import Comparison as Simulation
from policies.documents import key_text
from policies.explaining import differences
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


class Candidate(Struct, frozen=True, forbid_unknown_fields=True):
    """The text of a tenant's file as somebody would like it."""

    text: Annotated[str, Meta(max_length=50_000)]


class ChangeRow(Struct, frozen=True):
    """One value in force that would differ; null where there is none."""

    tenant: str
    key: str
    before: str | None
    after: str | None


class Comparison(Struct, frozen=True):
    """What a candidate would change, or why it cannot be loaded."""

    changes: list[ChangeRow]
    problem: str | None = None


class SimulatedCandidate(Candidate, frozen=True, forbid_unknown_fields=True):
    """A candidate, and the span of logged requests to replay under it: `24h`, `7d`, `2026-11`, ..."""

    range: Annotated[str, Meta(max_length=40)] = "7d"


class Simulated(Struct, frozen=True):
    """What a candidate would have done with the logged requests, or why it cannot be loaded."""

    result: Simulation | None
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class PolicyAdministration:
    """What the policy routes need; `what_if` replays the log of a span and a tenant under a candidate."""

    current: Callable[[], PolicySet]
    reload: Callable[[], Awaitable[ReloadResult]]
    candidates: CandidatePolicies
    changes: Changes
    what_if: Callable[[PolicySet, str, str], Simulation]

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

    def compare(self, tenant: str, text: str) -> Comparison:
        """Say what the candidate would change; reading the folder takes time, so call it in a thread."""
        if self.current().get(tenant) is None:
            raise UnknownName(f"The tenant {tenant[:64]!r} has no policy.", param="tenant")
        try:
            candidate = self.candidates.with_file(tenant, text)
        except ConfigurationError as problem:
            return Comparison([], problem.message)
        found = differences(self.current().policies, candidate.policies)
        return Comparison([ChangeRow(one.tenant, key_text(one.path), one.old, one.new) for one in found])

    def simulate(self, tenant: str, wanted: SimulatedCandidate) -> Simulated:
        """Replay the tenant's logged requests under the candidate; takes seconds, so call it in a thread."""
        if self.current().get(tenant) is None:
            raise UnknownName(f"The tenant {tenant[:64]!r} has no policy.", param="tenant")
        try:
            candidate = self.candidates.with_file(tenant, wanted.text)
            return Simulated(self.what_if(candidate, wanted.range, tenant))
        except ConfigurationError as problem:
            return Simulated(None, problem.message)


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

    @post("/{tenant:str}/compare", opt=VIEWER, status_code=200, summary="Say what a changed file would change")
    async def compare(tenant: FromPath[str], data: JSONBody[Candidate]) -> Comparison:
        return await asyncio.to_thread(policies.compare, tenant, data.text)

    @post("/{tenant:str}/simulate", opt=VIEWER, status_code=200, summary="Replay logged requests under a changed file")
    async def simulate(tenant: FromPath[str], data: JSONBody[SimulatedCandidate]) -> Simulated:
        return await asyncio.to_thread(policies.simulate, tenant, data)

    @post("/reload", opt=OPERATOR, status_code=200, summary="Load the folder of policies again")
    async def reload(request: AdminRequest) -> Reloaded:
        return await policies.reloaded(request)

    return Router("/admin/policies", route_handlers=[list_tenants, show, compare, simulate, reload], tags=["policies"])


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
