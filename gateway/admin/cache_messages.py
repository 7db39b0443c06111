"""What the routes under `/admin/cache` take and answer with."""

from datetime import datetime
from typing import Annotated

from msgspec import Meta, Struct

from cache.control import ExportedEntry

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Names = Annotated[list[Name], Meta(max_length=1_000)]
Seconds = Annotated[float, Meta(ge=0, le=1e10)]
MOST_EXPORTED = 200


class Invalidation(Struct, frozen=True, forbid_unknown_fields=True):
    """Which entries of a tenant are to go: all conditions hold, at least one is given."""

    tenant: Name
    entry_ids: Names = []
    model: Name | None = None
    older_than_s: Seconds | None = None
    tag: Name | None = None
    dry_run: bool = False


class Flush(Struct, frozen=True, forbid_unknown_fields=True):
    """Remove all entries of a tenant, or of all tenants when none is named."""

    tenant: Name | None = None
    dry_run: bool = False


class Forget(Struct, frozen=True, forbid_unknown_fields=True):
    """Remove all that the cache has of a tenant."""

    tenant: Name


class ForgottenTenant(Struct, frozen=True):
    """What went: entries, and the key that opened them if there was one.

    `has_policy` warns that the tenant may still ask, so that new entries are made for it.
    """

    tenant: str
    entries: int
    key_shredded: bool
    has_policy: bool


class Removed(Struct, frozen=True):
    """How many entries went, or would go, and the first of their ids."""

    count: int
    dry_run: bool
    entry_ids: list[str]


class Feedback(Struct, frozen=True, forbid_unknown_fields=True):
    """What somebody says of a hit: named by its request, or by its entry from `x-headgate-cache-entry`."""

    tenant: Name
    wrong: bool
    request_id: Name | None = None
    entry_id: Name | None = None


class Taken(Struct, frozen=True):
    """Whether there was such a hit or entry."""

    known: bool


class Import(Struct, frozen=True, forbid_unknown_fields=True):
    """Exported entries of one tenant."""

    tenant: Name
    entries: Annotated[list[ExportedEntry], Meta(max_length=MOST_EXPORTED)]


class Imported(Struct, frozen=True):
    """How many entries were kept; expired ones are not."""

    kept: int


class Exported(Struct, frozen=True):
    """A page of entries, and the id to go on after, null at the end."""

    entries: list[ExportedEntry]
    after: str | None


class TenantEntries(Struct, frozen=True):
    """How many entries a tenant has."""

    tenant: str
    entries: int


class Stats(Struct, frozen=True):
    """Look-ups of this process since its start by outcome, where the index lies, and each tenant's entries."""

    exact: int
    semantic: int
    near: int
    miss: int
    bypass: int
    stored: int
    failed: int
    index: str
    tenants: list[TenantEntries]


class TenantRow(Struct, frozen=True):
    """One tenant: hit rate and the bound on wrong hits, both over requests that were looked up.

    `threshold` is null while only exact hits are served; `source` says whose calibration is in force.
    """

    tenant: str
    requests: int
    exact: int
    semantic: int
    near: int
    hit_ratio: float
    judged: int
    wrong: int
    threshold: float | None
    source: str
    false_hit_bound: float
    max_false_hit_rate: float


class Report(Struct, frozen=True):
    """All tenants that asked."""

    tenants: list[TenantRow]


class NearRow(Struct, frozen=True):
    """Something similar that was not served, and why."""

    at: datetime
    tenant: str
    entry_id: str
    similarity: float
    veto: str
    score: float | None


class NearHits(Struct, frozen=True):
    """The last near hits, newest first."""

    near: list[NearRow]
