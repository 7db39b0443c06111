"""Who is asking, and the names given to requests."""

import secrets
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated key: its tenant pays. Empty scopes mean "whatever the tenant may".

    `user` is the end user that the request names; it is known once the body was read.
    """

    tenant: str
    key_id: str
    allowed_models: frozenset[str] = frozenset()
    allowed_tiers: frozenset[str] = frozenset()
    allowed_users: frozenset[str] = frozenset()
    user: str | None = None


def new_request_id() -> str:
    """Return a fresh id (`req_` and 128 random bits in hex) that is also the id of the decision record."""
    return f"req_{secrets.token_hex(16)}"
