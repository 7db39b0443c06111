"""What finished traces add up to, in plain numbers that `/metrics` reads when it is asked.

The client's own instruments take a lock and several calls for each of a dozen sums: several times what it takes to add
to attributes. One thread records, the event loop's; any other may collect, and may then see a request in some sums that
is not yet in the others.
"""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from core.money import NANO_PER_USD
from core.trace import SHADOW_PATH, Attempt, AttemptKind, AttemptOutcome, CacheOutcome, RequestTrace
from gateway.telemetry import request_families as families
from gateway.telemetry.attainment import tpot_ms, verdict_on
from gateway.telemetry.families import PREFIX, Family
from gateway.telemetry.savings import HITS

NONE = "none"
OTHER = "other"
COUNTED = (
    families.REQUESTS,
    families.SHADOWS,
    families.TOKENS,
    families.COST,
    families.SAVED,
    families.BASELINE,
    families.ROUTES,
    families.ATTEMPTS,
    families.OTHER_MODEL,
    families.RESCUES,
    families.OUTRUN_COST,
    families.JUDGED,
    families.MISSED,
    families.VIOLATIONS,
)
TIMED = (families.TTFT, families.TOTAL, families.TPOT, families.OVERHEAD, families.QUEUED)
FAMILIES = (*COUNTED, *TIMED, families.SHADOW_PRICE)
"""What is collected here; all other families of the request path have instruments."""
Labels = tuple[str, ...]
Sums = dict[tuple[Family, Labels], float]


class _Times:
    """One histogram: counts between bounds, one more than bounds, and the sum; in seconds."""

    __slots__ = ("bounds_s", "counts", "sum_s")

    def __init__(self, bounds_s: tuple[float, ...]) -> None:
        self.bounds_s = bounds_s
        self.counts = [0] * (len(bounds_s) + 1)
        self.sum_s = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds_s, seconds)] += 1
        self.sum_s += seconds


class _Tier:
    """The histograms of one tier."""

    __slots__ = ("overhead", "queued", "total", "tpot", "ttft")

    def __init__(self, bounds_s: dict[Family, tuple[float, ...]]) -> None:
        self.ttft, self.total, self.tpot, self.overhead, self.queued = (_Times(bounds_s[one]) for one in TIMED)

    def by_family(self) -> Iterator[tuple[Family, _Times]]:
        return zip(TIMED, (self.ttft, self.total, self.tpot, self.overhead, self.queued), strict=True)


class _Series:
    """The sums of requests that share all labels; money in nano-USD.

    `purpose` is empty for requests of clients; for those of the gateway's own it says what they were for.
    """

    __slots__ = (
        "baseline", "cache", "cost", "input_tokens", "judged", "missed", "output_tokens", "purpose", "reason",
        "requests", "saved", "status", "tenant", "tier", "times", "violations",
    )  # fmt: skip

    def __init__(
        self, tenant: str, tier: str, status: int, cache: CacheOutcome, reason: str | None, purpose: str, times: _Tier
    ) -> None:
        self.tenant, self.tier, self.status, self.cache = tenant, tier, str(status), cache
        self.reason, self.purpose, self.times = reason, purpose, times
        self.requests = self.judged = self.missed = self.violations = 0
        self.input_tokens = self.output_tokens = self.cost = self.saved = self.baseline = 0

    def tell(self, sums: Sums) -> None:
        """Add what counts under each family's labels, zeros too, so that a series exists before it first counts."""
        who, requests = (self.tenant, self.tier), self.requests
        if self.purpose:
            sums[families.SHADOWS, (self.tenant, self.purpose, self.status)] += requests
        else:
            sums[families.REQUESTS, (self.tenant, self.status, self.cache, self.tier)] += requests
        if self.reason is not None:
            sums[families.ROUTES, (self.tier, self.reason)] += 0 if self.purpose else requests
        sums[families.TOKENS, (*who, "input")] += self.input_tokens
        sums[families.TOKENS, (*who, "output")] += self.output_tokens
        sums[families.COST, who] += self.cost / NANO_PER_USD
        sums[families.SAVED, who] += self.saved / NANO_PER_USD
        source = "cache" if self.cache in HITS else "routing"
        sums[families.BASELINE, (self.tenant, source)] += self.baseline / NANO_PER_USD
        sums[families.JUDGED, who] += self.judged
        sums[families.MISSED, who] += self.missed
        sums[families.VIOLATIONS, who] += self.violations


class RequestSums(Collector):
    """Adds traces up; the bounds of the histograms that ask for them hold `limits_s`."""

    def __init__(self, is_tenant: Callable[[str], bool], limits_s: tuple[float, ...]) -> None:
        self._is_tenant = is_tenant
        self._bounds_s = {family: family.bounds_with(limits_s) for family in TIMED}
        self._series: dict[tuple[str | int | None, ...], _Series] = {}
        self._tiers: dict[str, _Tier] = {}
        self._attempts: defaultdict[tuple[str, AttemptOutcome], int] = defaultdict(int)
        self._seldom: Sums = defaultdict(float)
        self._shadow_prices: dict[str, float] = {}

    def record(self, trace: RequestTrace) -> None:
        """Count one request; of what the gateway asked by itself, the cost alone and that it happened."""
        tier, path = trace.tier, trace.path
        purpose = path.removeprefix(SHADOW_PATH) if trace.is_shadow else ""
        of = self._series.get((trace.tenant, tier, trace.status, trace.cache, trace.reason, purpose))
        if of is None:
            of = self._new_series(trace, purpose)
        of.requests += 1
        cost, usage = trace.cost_nano_usd, trace.usage
        of.cost += cost
        of.saved += trace.saved_nano_usd
        for attempt in trace.attempts:
            self._attempts[attempt.deployment, attempt.outcome] += 1
            if attempt.kind is not AttemptKind.FIRST or attempt.outcome is AttemptOutcome.OUTRUN or attempt.other_model:
                self._count_seldom(attempt)
        if usage is not None and trace.attempts:
            of.input_tokens += usage.input_tokens
            of.output_tokens += usage.output_tokens
        if purpose:
            return
        baseline = trace.baseline_nano_usd
        of.baseline += cost if baseline is None else baseline
        if trace.shadow_price_per_usd is not None:
            self._shadow_prices[of.tenant] = trace.shadow_price_per_usd
        self._judge(trace, of)

    def _judge(self, trace: RequestTrace, of: _Series) -> None:
        verdict, times = verdict_on(trace), of.times
        if verdict is not None:
            of.judged += 1
            of.missed += verdict == "missed"
        of.violations += trace.sla_violated
        if trace.ttft_ms is not None:
            times.ttft.add(trace.ttft_ms / 1000)
            between_ms = tpot_ms(trace)
            if between_ms is not None:
                times.tpot.add(between_ms / 1000)
        times.total.add(trace.total_ms / 1000)
        times.overhead.add(trace.overhead_ms / 1000)
        if trace.queued_ms:
            times.queued.add(trace.queued_ms / 1000)

    def _count_seldom(self, attempt: Attempt) -> None:
        if attempt.other_model is not None:
            self._seldom[families.OTHER_MODEL, (attempt.deployment,)] += 1
        if attempt.kind is not AttemptKind.FIRST:
            self._seldom[families.RESCUES, (attempt.kind.value, attempt.outcome.value)] += 1
        if attempt.outcome is AttemptOutcome.OUTRUN:
            self._seldom[families.OUTRUN_COST, (attempt.tier,)] += attempt.cost_nano_usd / NANO_PER_USD

    def _new_series(self, trace: RequestTrace, purpose: str) -> _Series:
        """Return the series of a trace's labels; tenants that are not configured share one."""
        tenant, tier = self.tenant_label(trace.tenant), trace.tier or NONE
        key = (tenant, trace.tier, trace.status, trace.cache, trace.reason, purpose)
        found = self._series.get(key)
        if found is None:
            times = self._tiers.get(tier)
            if times is None:
                times = self._tiers[tier] = _Tier(self._bounds_s)
            found = _Series(tenant, tier, trace.status, trace.cache, trace.reason, purpose, times)
            self._series[key] = found
        return found

    def tenant_label(self, tenant: str) -> str:
        """Return the tenant's label: its name when it is configured, `other` otherwise."""
        return tenant if self._is_tenant(tenant) else OTHER

    def collect(self) -> Iterator[Metric]:
        """Yield the families; for any thread."""
        sums: Sums = defaultdict(float, self._seldom)
        for series in list(self._series.values()):
            series.tell(sums)
        for (deployment, outcome), count in list(self._attempts.items()):
            sums[families.ATTEMPTS, (deployment, outcome.value)] = count
        made = {family: family.counter() for family in COUNTED}
        for (family, labels), value in sums.items():
            made[family].add_metric(labels, value)
        yield from made.values()
        tiers = list(self._tiers.items())
        for family in TIMED:
            yield self._histogram(family, tiers)
        prices = families.SHADOW_PRICE.gauge()
        for tenant, price in list(self._shadow_prices.items()):
            prices.add_metric((tenant,), price)
        yield prices

    def _histogram(self, family: Family, tiers: list[tuple[str, _Tier]]) -> Metric:
        shown = HistogramMetricFamily(PREFIX + family.name, family.text, labels=family.labels)
        bounds_s = (*self._bounds_s[family], float("inf"))
        names = [floatToGoString(bound) for bound in bounds_s]  # type: ignore[no-untyped-call]
        for tier, times in tiers:
            one = dict(times.by_family())[family]
            shown.add_metric((tier,), list(zip(names, map(float, accumulate(one.counts)), strict=True)), one.sum_s)
        return shown
