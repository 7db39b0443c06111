"""Who is asking, and the names given to requests."""

import os
import time
from collections import deque
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


RANDOM_BYTES = 16
_DRAWN_AT_ONCE = 256
_drawn: deque[str] = deque()
"""Random bits of the system, drawn for many ids at once: one call for each costs as much as half of a look-up."""
os.register_at_fork(after_in_child=_drawn.clear)


def random_hex() -> str:
    """Return 128 random bits in hex, as `secrets.token_hex(16)` does."""
    try:
        return _drawn.popleft()
    except IndexError:
        drawn = os.urandom(RANDOM_BYTES * _DRAWN_AT_ONCE).hex()
        digits = 2 * RANDOM_BYTES
        _drawn.extend(drawn[at : at + digits] for at in range(0, len(drawn) - digits, digits))
        return drawn[-digits:]


def new_entry_id() -> str:
    """Return a fresh id of a cache entry: 40 bits of the time, 56 random ones, so that indexes grow at one place."""
    return f"{_microsecond()}{random_hex()[:14]}"


def new_request_id() -> str:
    """Return a fresh id, which is also the decision record's: `req_`, 64 random bits, 40 of the time, 24 random ones.

    The logs look requests up by the last 16 digits. Those begin with the microsecond, so that their indexes grow at one
    place: random ones touch a page of the index for nearly every row, which doubles what a busy log writes.
    """
    drawn = random_hex()
    return f"req_{drawn[:16]}{_microsecond()}{drawn[16:22]}"


def _microsecond() -> str:
    return "%010x" % (time.time_ns() // 1000 & 0xFF_FFFF_FFFF)  # a third of an f-string's time
