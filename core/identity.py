"""Who is asking, and the names given to requests."""

import secrets
import time
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
    """Return a fresh id, which is also the decision record's: `req_`, 64 random bits, 40 of the time, 24 random ones.

    The logs look requests up by the last 16 digits. Those begin with the microsecond, so that their indexes grow at one
    place: random ones touch a page of the index for nearly every row, which doubles what a busy log writes.
    """
    drawn = secrets.token_hex(11)
    return f"req_{drawn[:16]}{time.time_ns() // 1000 % (1 << 40):010x}{drawn[16:]}"
