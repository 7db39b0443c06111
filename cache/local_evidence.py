"""What a tenant's own judged hits say about the guard: thresholds that replace the shipped ones, tighten, or demote.

A judged sample is a semantic candidate of known score whose answer was compared with a fresh one, or that the tenant
reported. With `LEAST_JUDGED` samples the tenant's own bound decides. Before that the shipped threshold holds, unless
the samples already prove, with 95 % confidence, that it lets too many false hits through: then it is raised at once, up
to serving exact hits only. Everything is bounded: samples and vetoes per tenant, and the number of tenants.
"""

from collections import Counter, OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import msgspec

from cache.calibration import DEFAULT_RATE, NEVER, ScoreTable, lower_bound, upper_bound

SCHEMA = 1
LEAST_JUDGED = 300
_LEAST_FOR_DOUBT = 8
_MAX_JUDGED = 2_000
_MAX_VETOES = 1_000
_MAX_TENANTS = 1_000
_GRID = tuple(step / 100 for step in range(99, 29, -1))
Source = Literal["shipped", "local", "tightened", "demoted", "uncalibrated"]


class Judged(msgspec.Struct, frozen=True, array_like=True):
    """One judged candidate: its score and whether its answer was right."""

    score: float
    is_right: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """The threshold in force for a tenant, where it comes from, and the bound on false hits / requests at it."""

    threshold: float
    source: Source
    bound: float


@dataclass(frozen=True, slots=True)
class TenantReport:
    """Counts of one tenant and the bound on its wrong hits; `judged` and `wrong` count semantic candidates."""

    tenant: str
    requests: int
    exact: int
    semantic: int
    near: int
    judged: int
    wrong: int
    threshold: float | None
    source: Source
    bound: float


@dataclass(slots=True)
class _Tenant:
    judged: deque[Judged] = field(default_factory=lambda: deque(maxlen=_MAX_JUDGED))
    vetoes: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)
    counts: Counter[str] = field(default_factory=Counter)
    candidates: int = 0


class _KeptTenant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    judged: list[Judged]
    vetoes: list[tuple[str, str]]
    counts: dict[str, int]
    candidates: int


class _Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: int
    encoder: str
    tenants: dict[str, _KeptTenant]


class LocalEvidence:
    """Judged samples, counts and reported pairs per tenant; used from the event loop only."""

    def __init__(self, table: ScoreTable, encoder: str = "", *, least_judged: int = LEAST_JUDGED) -> None:
        self._table = table
        self._encoder = encoder
        self._least_judged = least_judged
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()
        self._standings: dict[tuple[str, float, bool], Standing] = {}

    def count(self, tenant: str, outcome: str, *, is_candidate: bool = False) -> None:
        """Count one looked-up request by its outcome; a candidate is one whose nearest entry got a score."""
        kept = self._of(tenant)
        kept.counts[outcome] += 1
        kept.candidates += is_candidate

    def judge(self, tenant: str, score: float, *, is_right: bool) -> None:
        """Add a judged sample; the tenant's thresholds are computed anew."""
        self._of(tenant).judged.append(Judged(score, is_right))
        self._standings = {key: kept for key, kept in self._standings.items() if key[0] != tenant}

    def veto(self, tenant: str, cached_key: str, new_key: str) -> None:
        """Record that the answer of one prompt was wrong for another; both are keyed hashes."""
        vetoes = self._of(tenant).vetoes
        vetoes[(cached_key, new_key)] = None
        if len(vetoes) > _MAX_VETOES:
            vetoes.popitem(last=False)

    def is_vetoed(self, tenant: str, cached_key: str, new_key: str) -> bool:
        """Whether this pair was reported wrong."""
        kept = self._tenants.get(tenant)
        return kept is not None and (cached_key, new_key) in kept.vetoes

    def standing(
        self, tenant: str, max_false_hit_rate: float, *, exact_only_until_calibrated: bool = False
    ) -> Standing:
        """Return the threshold in force; `max_false_hit_rate` is false hits / requests."""
        key = (tenant, max_false_hit_rate, exact_only_until_calibrated)
        found = self._standings.get(key)
        if found is None:
            found = self._standings[key] = self._standing(tenant, max_false_hit_rate, exact_only_until_calibrated)
        return found

    def reports(
        self, rates: Mapping[str, float] | None = None, waiting: frozenset[str] = frozenset()
    ) -> list[TenantReport]:
        """Return one report for every tenant seen, under its own rate; `waiting` are exact-only until calibrated."""
        known = rates or {}
        return [self._report(name, known.get(name, DEFAULT_RATE), name in waiting) for name in sorted(self._tenants)]

    def forget(self, tenant: str) -> None:
        """Drop everything about a tenant."""
        self._tenants.pop(tenant, None)
        self._standings = {key: kept for key, kept in self._standings.items() if key[0] != tenant}

    def dump(self) -> bytes:
        """Encode everything for the next start: scores, counts and keyed hashes, no texts."""
        tenants = {
            name: _KeptTenant(list(one.judged), list(one.vetoes), dict(one.counts), one.candidates)
            for name, one in self._tenants.items()
        }
        return msgspec.json.encode(_Kept(SCHEMA, self._encoder, tenants))

    def restore(self, kept: bytes) -> None:
        """Take over what `dump` wrote; judged scores of another encoder are left out, since they do not compare.

        Raises:
            msgspec.DecodeError: it is not such a record.
            ValueError: of a newer schema.
        """
        written = msgspec.json.decode(kept, type=_Kept)
        if written.schema != SCHEMA:
            raise ValueError(f"the cache's local evidence has schema {written.schema}, not {SCHEMA}")
        for name, one in written.tenants.items():
            tenant = self._of(name)
            tenant.counts.update(one.counts)
            tenant.candidates += one.candidates
            tenant.vetoes.update(dict.fromkeys(one.vetoes))
            if written.encoder == self._encoder:
                tenant.judged.extend(one.judged)
        self._standings.clear()

    def _of(self, tenant: str) -> _Tenant:
        kept = self._tenants.get(tenant)
        if kept is None:
            kept = self._tenants[tenant] = _Tenant()
            if len(self._tenants) > _MAX_TENANTS:
                self._tenants.popitem(last=False)
        return kept

    def _standing(self, tenant: str, rate: float, exact_only: bool) -> Standing:
        kept = self._tenants.get(tenant, _Tenant())
        if len(kept.judged) >= self._least_judged:
            return self._local(kept, rate)
        if exact_only:
            return Standing(NEVER, "uncalibrated", 0.0)
        shipped = self._table.threshold(rate)
        return self._doubted(kept, rate, shipped)

    def _local(self, kept: _Tenant, rate: float) -> Standing:
        """Return the loosest threshold that the tenant's samples hold within the rate, trying the strictest first."""
        found = Standing(NEVER, "demoted", 0.0)
        for threshold in _GRID:
            bound = self._bound(kept, threshold)
            if bound > rate:
                break
            found = Standing(threshold, "local", bound)
        return found

    def _doubted(self, kept: _Tenant, rate: float, threshold: float) -> Standing:
        """Return the shipped threshold, raised as far as the samples prove it too low."""
        step = next((one for one in self._table.steps if one.threshold == threshold), None)
        shipped = Standing(threshold, "shipped", 0.0 if step is None else step.bound)
        if not self._is_refuted(kept, threshold, rate):
            return shipped
        for higher in sorted(one for one in _GRID if one > threshold):
            if not self._is_refuted(kept, higher, rate):
                return Standing(higher, "tightened", self._bound(kept, higher))
        return Standing(NEVER, "demoted", 0.0)

    def _is_refuted(self, kept: _Tenant, threshold: float, rate: float) -> bool:
        wrong, judged = _wrong_at(kept, threshold)
        if judged < _LEAST_FOR_DOUBT:
            return False
        return lower_bound(wrong, judged) * _share(kept, judged) > rate

    def _bound(self, kept: _Tenant, threshold: float) -> float:
        """Bound false hits / requests: the rate among hits at this threshold times the share of requests that hit."""
        wrong, judged = _wrong_at(kept, threshold)
        if judged == 0:
            return 0.0
        return upper_bound(wrong, judged) * _share(kept, judged)

    def _report(self, name: str, rate: float, is_waiting: bool) -> TenantReport:
        kept = self._tenants[name]
        standing = self.standing(name, rate, exact_only_until_calibrated=is_waiting)
        wrong, judged = _wrong_at(kept, -1.0)
        return TenantReport(
            tenant=name,
            requests=kept.counts.total(),
            exact=kept.counts["exact"],
            semantic=kept.counts["semantic"],
            near=kept.counts["near"],
            judged=judged,
            wrong=wrong,
            threshold=None if standing.threshold == NEVER else standing.threshold,
            source=standing.source,
            bound=standing.bound,
        )


def _wrong_at(kept: _Tenant, threshold: float) -> tuple[int, int]:
    """Return (wrong, judged) among the samples at or above the threshold."""
    at_least = [one for one in kept.judged if one.score >= threshold]
    return sum(not one.is_right for one in at_least), len(at_least)


def _share(kept: _Tenant, judged: int) -> float:
    """Return the share of requests that such candidates are, the judged ones being like the rest; 1 before any."""
    requests = kept.counts.total()
    if not requests or not kept.judged:
        return 1.0
    return min(1.0, kept.candidates / requests) * judged / len(kept.judged)
