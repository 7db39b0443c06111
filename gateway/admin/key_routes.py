"""`/admin/keys`: list, create, rotate and revoke; keys of administrators are the owners' business alone."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

from litestar import Router, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta, Struct

from core.clock import Clock
from core.errors import InvalidRequest, UnknownName
from gateway.admin.access import OPERATOR, VIEWER, AdminRequest, actor_of, require
from gateway.admin.key_views import KeyView, key_view
from gateway.changes import Changes
from policies.keys import KeyRecord, KeyStore, Role, create_admin_key, create_key, revoke_key, rotate_key
from policies.loading import PolicySet

MAX_LISTED = 1000
Name = Annotated[str, Meta(min_length=1, max_length=200)]
Names = Annotated[list[Name], Meta(max_length=100)]
Days = Annotated[float, Meta(gt=0, le=36_500)]
Hours = Annotated[float, Meta(ge=0, le=8_784)]


class NewKey(Struct, frozen=True, forbid_unknown_fields=True):
    """Ask for a key of a tenant, narrowed where lists are given, or of an administrator (`role`, no tenant)."""

    tenant: Name | None = None
    role: Role | None = None
    models: Names = []
    tiers: Names = []
    users: Names = []
    expires_days: Days | None = None


class Rotation(Struct, frozen=True, forbid_unknown_fields=True):
    """How long the old key goes on working."""

    overlap_hours: Hours = 24.0


class CreatedKey(Struct, frozen=True):
    """A new key; its text is shown this once."""

    key: str
    record: KeyView


class KeyList(Struct, frozen=True):
    """A page of keys, oldest first, and how many there are in all."""

    total: int
    keys: list[KeyView]


@dataclass(frozen=True, slots=True)
class KeyAdministration:
    """What the key routes need; `store` is used from threads, one change at a time, so it is theirs alone."""

    store: KeyStore
    pepper: bytes
    clock: Clock
    policies: Callable[[], PolicySet]
    tiers: tuple[str, ...]
    changes: Changes

    async def page(self, tenant: str | None, limit: int, offset: int) -> KeyList:
        """Return some of the keys."""
        records = await asyncio.to_thread(self.store.records, tenant)
        return KeyList(len(records), [key_view(record) for record in records[offset : offset + limit]])

    async def create(self, request: AdminRequest, wanted: NewKey) -> CreatedKey:
        """Make a key."""
        text, record = self._made(request, wanted)
        async with self.changes.recording(actor_of(request), "key.create", record.key_id) as change:
            await asyncio.to_thread(self.store.put, record)
            change.after = key_view(record)
        return CreatedKey(text, key_view(record))

    async def rotate(self, request: AdminRequest, key_id: str, rotation: Rotation) -> CreatedKey:
        """Make a key in place of another."""
        old = await self._known(request, key_id)
        overlap = timedelta(hours=rotation.overlap_hours)
        async with self.changes.recording(actor_of(request), "key.rotate", key_id, key_view(old)) as change:
            text, new = await asyncio.to_thread(rotate_key, self.store, key_id, self.pepper, self.clock, overlap)
            ending = await asyncio.to_thread(self.store.get, key_id)
            change.after = [key_view(new), key_view(ending or old)]
        return CreatedKey(text, key_view(new))

    async def revoke(self, request: AdminRequest, key_id: str) -> KeyView:
        """Revoke a key; one that is revoked stays so."""
        old = await self._known(request, key_id)
        if old.revoked_at is not None:
            return key_view(old)
        async with self.changes.recording(actor_of(request), "key.revoke", key_id, key_view(old)) as change:
            await asyncio.to_thread(revoke_key, self.store, key_id, self.clock.now())
            revoked = await asyncio.to_thread(self.store.get, key_id)
            change.after = key_view(revoked or old)
        return key_view(revoked or old)

    def _made(self, request: AdminRequest, wanted: NewKey) -> tuple[str, KeyRecord]:
        """Check what is wanted and make it; nothing is stored yet."""
        if (wanted.tenant is None) == (wanted.role is None):
            raise InvalidRequest("A key belongs to a `tenant` or has a `role`: give exactly one of them.")
        life = wanted.expires_days
        expires_at = None if life is None else self.clock.now() + timedelta(days=life)
        if wanted.role is not None:
            require(request.user, Role.OWNER)
            if wanted.models or wanted.tiers or wanted.users:
                raise InvalidRequest("An administrator's key has a role and no scopes.", param="role")
            return create_admin_key(wanted.role, self.pepper, self.clock, expires_at=expires_at)
        tenant = wanted.tenant or ""
        if self.policies().get(tenant) is None:
            raise InvalidRequest(f"The tenant {tenant!r} has no policy.", param="tenant")
        unknown = sorted(set(wanted.tiers).difference(self.tiers))
        if unknown:
            raise InvalidRequest(f"Unknown tier {unknown[0]!r}; use one of: {', '.join(self.tiers)}.", param="tiers")
        return create_key(
            tenant,
            self.pepper,
            self.clock,
            allowed_models=wanted.models,
            allowed_tiers=wanted.tiers,
            allowed_users=wanted.users,
            expires_at=expires_at,
        )

    async def _known(self, request: AdminRequest, key_id: str) -> KeyRecord:
        """Return the record that the path names; an administrator's may be touched by an owner only.

        Otherwise an operator could rotate an owner's key and hold an owner's key.
        """
        record = await asyncio.to_thread(self.store.get, key_id)
        if record is None:
            raise UnknownName(f"There is no key {key_id[:40]!r}.", param="key_id")
        if record.role is not None:
            require(request.user, Role.OWNER)
        return record


def key_router(keys: KeyAdministration) -> Router:
    """Return the routes under `/admin/keys`."""

    @get("/", opt=VIEWER, summary="List keys")
    async def list_keys(
        tenant: Annotated[str | None, QueryParameter(max_length=200)] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=MAX_LISTED)] = 100,
        offset: Annotated[int, QueryParameter(ge=0, le=10_000_000)] = 0,
    ) -> KeyList:
        return await keys.page(tenant, limit, offset)

    @post("/", opt=OPERATOR, summary="Create a key")
    async def create(request: AdminRequest, data: JSONBody[NewKey]) -> CreatedKey:
        return await keys.create(request, data)

    @post("/{key_id:str}/rotate", opt=OPERATOR, summary="Rotate a key")
    async def rotate(request: AdminRequest, key_id: FromPath[str], data: JSONBody[Rotation]) -> CreatedKey:
        return await keys.rotate(request, key_id, data)

    @post("/{key_id:str}/revoke", opt=OPERATOR, status_code=200, summary="Revoke a key")
    async def revoke(request: AdminRequest, key_id: FromPath[str]) -> KeyView:
        return await keys.revoke(request, key_id)

    return Router("/admin/keys", route_handlers=[list_keys, create, rotate, revoke], tags=["keys"])
