"""What may be shown of a key: never its secret, nor the secret's hash."""

import msgspec

from policies.keys import KeyRecord


class KeyView(msgspec.Struct, frozen=True):
    """A key as the admin API, the commands and the audit log see it; empty scopes mean whatever the tenant may."""

    key_id: str
    tenant: str | None
    role: str | None
    models: list[str]
    tiers: list[str]
    users: list[str]
    created_at: str
    expires_at: str | None
    revoked_at: str | None
    replaced_by: str | None


def key_view(record: KeyRecord) -> KeyView:
    """Return what may be shown of a key."""
    return KeyView(
        key_id=record.key_id,
        tenant=record.tenant or None,
        role=None if record.role is None else record.role.value,
        models=sorted(record.allowed_models),
        tiers=sorted(record.allowed_tiers),
        users=sorted(record.allowed_users),
        created_at=record.created_at.isoformat(),
        expires_at=None if record.expires_at is None else record.expires_at.isoformat(),
        revoked_at=None if record.revoked_at is None else record.revoked_at.isoformat(),
        replaced_by=record.replaced_by,
    )
