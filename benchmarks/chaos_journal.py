"""What a gateway of the chaos run writes down of every request, in a form that survives `kill -9`, and the tenants."""

import os
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from pathlib import Path
from struct import Struct
from time import monotonic, time
from zoneinfo import ZoneInfo

import numpy as np

from core.rules import Budget, CacheRules, Limits, OnStoreOutage, Routing, TenantPolicy

RECORD = Struct("<qBBBBi qq dddd")
DTYPE = np.dtype(
    [
        ("number", "<i8"), ("tenant", "u1"), ("outcome", "u1"), ("key", "u1"), ("plain", "u1"), ("pad", "<i4"),
        ("amount", "<i8"), ("cost", "<i8"),
        ("asked_s", "<f8"), ("granted_s", "<f8"), ("settling_s", "<f8"), ("settled_s", "<f8"),
    ]
)  # fmt: skip
_SETTLED_AT = RECORD.size - 8
NEVER = float("inf")


class Outcome(IntEnum):
    """How a request of the run ended."""

    RAN = 0
    REFUSED = 1
    UNAVAILABLE = 2
    CANCELLED = 3
    FORGOTTEN = 4
    ABANDONED = 5
    """Cancelled before it knew whether it was granted."""


@dataclass(frozen=True, slots=True)
class ChaosTenant:
    """One tenant of the run: what it is there to show."""

    policy: TenantPolicy
    weight: int
    plain: bool = False
    """Reserve in Redis, without slices."""
    survivors_only: bool = False
    """Served by gateways that are never killed, so that its books must be exact to the nano-USD."""


def tenants() -> tuple[ChaosTenant, ...]:
    """Return the tenants; requests reserve up to 2,000 nano-USD."""
    ample, usd = 10**15, 10**9
    month = Budget("month", ZoneInfo("Europe/Berlin"), ample, "reject")
    minute = Budget("minute", ZoneInfo("UTC"), 20_000_000, "reject")
    rolling = Budget("minute", ZoneInfo("UTC"), 6_000_000, "reject", rolling=True)
    per_key = Budget("minute", ZoneInfo("UTC"), 2_000_000, "small_only", per="key")
    plain = Budget("minute", ZoneInfo("UTC"), 2_000_000, "reject")
    large = Budget("day", ZoneInfo("America/New_York"), usd, "reject", tier="large")
    return (
        ChaosTenant(_policy("ample", (month, large)), 30),
        ChaosTenant(_policy("steady", (month,)), 20, survivors_only=True),
        ChaosTenant(_policy("tight", (minute, month)), 25),
        ChaosTenant(_policy("rolling", (rolling,)), 8),
        ChaosTenant(_policy("keys", (per_key, month)), 10),
        ChaosTenant(_policy("plain", (plain, month)), 7, plain=True),
        ChaosTenant(_policy("steady-plain", (month,)), 5, plain=True, survivors_only=True),
        ChaosTenant(_policy("open", (month,), "open"), 5),
        ChaosTenant(_policy("share", (month,), "local_share"), 5),
    )


def _policy(tenant: str, budgets: tuple[Budget, ...], outage: OnStoreOutage = "closed") -> TenantPolicy:
    return TenantPolicy(
        tenant=tenant, version="chaos", models={}, tiers=("small", "large"), deployments=frozenset(), budgets=budgets,
        limits=Limits(), service_class="interactive", sla={}, routing=Routing(), cache=CacheRules(),
        max_output_tokens=None, on_store_outage=outage, when_loading="small", fallback=True,
    )  # fmt: skip


class SkewedClock:
    """A wall clock that is wrong by hours, and a monotonic one that is right."""

    def __init__(self, skew_s: float) -> None:
        self._skew = timedelta(seconds=skew_s)

    def monotonic_s(self) -> float:
        """Return the machine's monotonic time, which all processes share."""
        return monotonic()

    def now(self) -> datetime:
        """Return the wrong time."""
        return datetime.now(UTC) + self._skew

    def unix_s(self) -> float:
        """Return the wrong time in seconds since the Unix epoch."""
        return self.now().timestamp()


class Journal:
    """Appends a record per request with one write each; a kill loses nothing that was written."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self._count = 0

    def write(
        self, number: int, tenant: int, outcome: Outcome, key: int, plain: bool, amount: int, cost: int,
        asked_s: float, granted_s: float, settling_s: float,
    ) -> int:  # fmt: skip
        """Write a request down before it is settled, and return its place."""
        place = self._count * RECORD.size
        self._count += 1
        record = RECORD.pack(
            number, tenant, outcome, key, plain, 0, amount, cost, asked_s, granted_s, settling_s, NEVER
        )  # fmt: skip
        os.pwrite(self._file, record, place)
        return place

    def settled(self, place: int) -> None:
        """Add that the settlement is over."""
        os.pwrite(self._file, Struct("<d").pack(monotonic()), place + _SETTLED_AT)


def wall_ahead_s() -> float:
    """Return what to add to monotonic seconds for Unix time."""
    return time() - monotonic()
