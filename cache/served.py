"""Remember, within bounds, what was served to which request and what nearly was: for feedback and the dashboard."""

from collections import OrderedDict, deque
from datetime import datetime

import msgspec

_MAX_SERVED = 10_000
_MAX_NEAR = 500


class ServedHit(msgspec.Struct, frozen=True, gc=False):
    """A hit that a request got, or a near hit whose answer may be compared; keys are hashes, `score` in [0, 1]."""

    tenant: str
    entry_id: str
    cached_key: str
    new_key: str
    score: float
    is_exact: bool = False


class NearRecord(msgspec.Struct, frozen=True, gc=False):
    """A near hit as the dashboard shows it: no texts; `score` is None where a hard veto decided."""

    at: datetime
    tenant: str
    entry_id: str
    similarity: float
    veto: str
    score: float | None


class ServedHits:
    """The last hits by request id and the last near hits of the process."""

    def __init__(self) -> None:
        self._by_request: OrderedDict[str, ServedHit] = OrderedDict()
        self._near: deque[NearRecord] = deque(maxlen=_MAX_NEAR)

    def served(self, request_id: str, hit: ServedHit) -> None:
        """Remember a hit, forgetting the oldest."""
        self._by_request[request_id] = hit
        if len(self._by_request) > _MAX_SERVED:
            self._by_request.popitem(last=False)

    def find(self, tenant: str, request_id: str) -> ServedHit | None:
        """Return what that tenant's request was served."""
        found = self._by_request.get(request_id)
        return found if found is not None and found.tenant == tenant else None

    def take(self, tenant: str, request_id: str) -> ServedHit | None:
        """Return and forget what that tenant's request was served, so that feedback counts once."""
        return None if self.find(tenant, request_id) is None else self._by_request.pop(request_id)

    def forget(self, tenant: str) -> None:
        """Drop everything about a tenant."""
        for request_id in [name for name, hit in self._by_request.items() if hit.tenant == tenant]:
            del self._by_request[request_id]
        self._near = deque((one for one in self._near if one.tenant != tenant), maxlen=_MAX_NEAR)

    def near(self, record: NearRecord) -> None:
        """Remember a near hit."""
        self._near.append(record)

    def near_hits(self, tenant: str | None = None) -> list[NearRecord]:
        """Return the last near hits, newest first, of one tenant or of all."""
        return [one for one in reversed(self._near) if tenant in (None, one.tenant)]
