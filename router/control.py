"""Hold tenants to their share of large calls, to their mean cost and to the pace of their budgets, request by request.

`steering` says what the next plan should aim at, `planned` takes the plan into account, `settled` what it came to. The
state is bounded, and equal requests at equal times give equal steering. It lives in the process: each of several
replicas controls its own part of the traffic. `dump` and `restore` carry it over a restart.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

import msgspec

from core.clock import Clock
from core.plan import Complexity, Plan, Reason, Spending, Standing
from core.rules import TenantPolicy
from core.trace import Attempt, AttemptOutcome
from core.weighing import UNSTEERED, Knob, Steering
from router.pacing import HORIZONS_S, Pace, Planned
from router.sliding import Seen, Slider

K = TypeVar("K")
V = TypeVar("V")
MAX_TENANTS = 10_000
MAX_PACES = 10_000
SCHEMA = 1
KEPT_DOWN = frozenset({Reason.PACE, Reason.BUDGET, Reason.LATENCY, Reason.LOADING, Reason.UNHEALTHY})
CHOSEN = KEPT_DOWN | {Reason.SCORE, Reason.PRIOR, Reason.SHARE, Reason.COST}
OPEN = frozenset({None, "quality", "latency", "cost"})


class Watched(msgspec.Struct, frozen=True, eq=False):
    """A planned request that is not settled: what was assumed of it, and where."""

    planned: Planned
    is_large: bool
    knob: Knob
    cheapest: str
    slider: Slider | None
    paces: tuple[Pace, ...]


class Tried(Protocol):
    """What the tries of one request have come to by now."""

    @property
    def attempts(self) -> Sequence[Attempt]:
        """Return every finished try, in order."""
        ...

    @property
    def cost_nano_usd(self) -> int:
        """Return the sum over all of them."""
        ...


class _SavedSlider(msgspec.Struct, array_like=True, frozen=True):
    tenant: str
    knob: Knob
    debt: float
    window: tuple[Seen, ...]


class _Saved(msgspec.Struct, frozen=True):
    schema: int
    sliders: tuple[_SavedSlider, ...] = ()
    paces: dict[str, Pace] = {}


@dataclass(slots=True)
class Control:
    """The state of all tenants; the least recently used is forgotten first."""

    clock: Clock
    replicas: int = 1
    _sliders: OrderedDict[tuple[str, Knob], Slider] = field(default_factory=OrderedDict)
    _paces: OrderedDict[str, Pace] = field(default_factory=OrderedDict)

    def steering(self, policy: TenantPolicy, standing: Standing) -> Steering:
        """Return what the next plan of this tenant should aim at; changes nothing."""
        knob, target = knob_of(policy)
        slider = None if target is None else self._sliders.get((policy.tenant, knob))
        if not standing.spending and target is None:
            return UNSTEERED
        price_per_usd = 0.0
        for spending in standing.spending:
            pace = self._paces.get(spending.account)
            if pace is not None and pace.price:
                price_per_usd = max(price_per_usd, pace.price_per_usd)
        floor = None if slider is None or target is None else slider.floor(target)
        return Steering(floor, knob, price_per_usd)

    def planned(
        self, policy: TenantPolicy, complexity: Complexity | None, plan: Plan, standing: Standing
    ) -> Watched | None:
        """Take a plan into account that is about to be carried out; None where the policy has nothing to hold."""
        knob, target = knob_of(policy)
        if plan.weighing is None or (not standing.spending and target is None):
            return None
        expected = plan.weighing.of(plan.steps[0].deployment, plan.tier).expected_nano_usd
        costs = [one.expected_nano_usd for one in plan.weighing.candidates if one.excluded_by in OPEN] or [expected]
        cheapest = policy.tiers[0] if policy.tiers else ""
        base = min(costs)
        used, extra = expected, max(costs) - base
        assumed = Planned(expected, plan.worst_case_nano_usd, extra)
        if knob == "share":
            used, base, extra = int(plan.tier != cheapest), 0, 1
        slider = None
        if target is not None:
            slider = _kept(self._sliders, (policy.tenant, knob), Slider, MAX_TENANTS)
            seen = Seen(None, used, 0)
            if complexity is not None and plan.reason in CHOSEN:
                seen = Seen(complexity.p_small_suffices, base, extra)
            slider.note(seen, used, target, may_owe=plan.reason not in KEPT_DOWN)
        return Watched(assumed, plan.tier != cheapest, knob, cheapest, slider, self._pace(standing.spending, assumed))

    def ended(self, watched: Watched | None, tried: Tried) -> None:
        """Take into account what came of a plan by `tried`; None is what nothing was noted of."""
        if watched is not None:
            answered = [one.tier for one in tried.attempts if one.outcome is AttemptOutcome.COMPLETE]
            self.settled(watched, tried.cost_nano_usd, answered[0] if answered else None)

    def settled(self, watched: Watched, cost_nano_usd: int, tier: str | None) -> None:
        """Replace what was assumed by what came of it.

        Args:
            watched: what `planned` returned.
            cost_nano_usd: the sum over all attempts.
            tier: who answered; None when nobody did.
        """
        if watched.slider is not None and watched.knob == "cost":
            watched.slider.correct(watched.planned.expected_nano_usd - cost_nano_usd)
        elif watched.slider is not None and tier is not None:
            watched.slider.correct(int(watched.is_large) - int(tier != watched.cheapest))
        for pace in watched.paces:
            pace.settle(watched.planned, cost_nano_usd)

    def dump(self) -> bytes:
        """Return the state as JSON: scores, sums and prices, no texts; any thread may call it."""
        sliders = tuple(
            _SavedSlider(tenant, knob, slider.debt, slider.window)
            for (tenant, knob), slider in [*self._sliders.items()]
        )
        return msgspec.json.encode(_Saved(SCHEMA, sliders, dict(self._paces)))

    def restore(self, dumped: bytes) -> None:
        """Take over what `dump` returned; nothing is in flight after a restart.

        Raises:
            ValueError: it is not a dump, or one of another schema.
        """
        saved = msgspec.json.decode(dumped, type=_Saved)
        if saved.schema != SCHEMA:
            raise ValueError(f"schema {saved.schema} instead of {SCHEMA}")
        for one in saved.sliders:
            slider = self._sliders[one.tenant, one.knob] = Slider()
            for seen in one.window:
                slider.put(seen)
            slider.debt = one.debt
        for account, pace in saved.paces.items():
            if len(pace.arrivals.counts) != len(HORIZONS_S):
                raise ValueError("counts over other lengths of time")
            pace.in_flight_nano_usd = pace.held_nano_usd = 0
            self._paces[account] = pace

    def _pace(self, spending: tuple[Spending, ...], planned: Planned) -> tuple[Pace, ...]:
        """Take a request into account in every budget; of several limits on one account the lowest is paced."""
        if not spending:
            return ()
        now_s = self.clock.now().timestamp()
        paces = []
        if len(spending) > 1:
            tightest = {one.account: one for one in sorted(spending, key=lambda one: -one.limit_nano_usd)}
            spending = tuple(tightest.values())
        for one in spending:
            pace = _kept(self._paces, one.account, Pace, MAX_PACES)
            pace.note(one, planned, now_s, self.replicas)
            paces.append(pace)
        return tuple(paces)


def knob_of(policy: TenantPolicy) -> tuple[Knob, int | float | None]:
    """Return the tenant's knob and its target: a share, nano-USD per request, or None where quality is the floor."""
    routing = policy.routing
    if len(policy.tiers) > 1 and routing.max_large_share is not None:
        return "share", routing.max_large_share
    if len(policy.tiers) > 1 and routing.target_cost_nano_usd is not None:
        return "cost", routing.target_cost_nano_usd
    return "quality", None


def _kept(states: OrderedDict[K, V], key: K, make: Callable[[], V], most: int) -> V:
    """Return the state under `key`, made where there is none, as the one used last."""
    state = states.get(key)
    if state is None:
        state = states[key] = make()
    states.move_to_end(key)
    if len(states) > most:
        states.popitem(last=False)
    return state
