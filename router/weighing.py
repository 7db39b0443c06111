"""Weigh what could answer: predicted quality, latency and cost of every deployment, and which tier they speak for.

Three wishes: quality at least the floor; a cost that is worth its price; predicted TTFT and total time within the SLA.
A tier is worth its price when no other one promises more after its cost is taken off at the shadow price; cheaper ones
than the best such tier always are. The choice breaks the wishes as little as possible, the one that the policy lets
give way last first; among equals the least expected cost wins, then the lower tier. So it is one minimum:

    choice = min over tiers of (excess of the last to give way, .., excess of the first to give way, expected cost)

Since it is the minimum of one order, taking other tiers away never changes it, and it is monotone: a higher floor only
takes cheap tiers away, a higher shadow price only dear ones.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from core.facts import RequestFacts
from core.money import NANO_PER_USD
from core.plan import Complexity, Readiness
from core.rules import NO_SLA, TenantPolicy, Wish
from core.weighing import Candidate, Exclusion, Pin
from router.ladder import Offer, Rung


class Option(msgspec.Struct, frozen=True, gc=False):
    """One offer with what is expected of it; `quality` is that of its tier, see `Candidate` for the others."""

    rung: int
    offer: Offer
    quality: float
    ttft_ms: float | None
    total_ms: float | None
    late_ratio: float
    expected_nano_usd: int


Options = tuple[Option, ...]


class Scale(msgspec.Struct, frozen=True, gc=False):
    """What options are held against."""

    floor: float
    price_per_usd: float
    give_way: tuple[Wish, ...]


def predicted_quality(p_small_suffices: float, rung: int, rungs: int) -> float:
    """Return P(a tier suffices): of K tiers the k-th closes the share k / (K - 1) of the gap to certainty."""
    if rungs == 1:
        return p_small_suffices
    return p_small_suffices + (1.0 - p_small_suffices) * rung / (rungs - 1)


def options_of(
    facts: RequestFacts, policy: TenantPolicy, complexity: Complexity | None, ladder: Sequence[Rung], pin: Pin | None
) -> tuple[Options, ...]:
    """Return the options of each tier in the order in which they are preferred there.

    Those within the SLA come first, of them the session's own, then as the operator listed them. Without a complexity
    only the last tier is known to suffice.
    """
    last = len(ladder) - 1
    if not last and len(ladder[0].offers) == 1:  # nothing to order, and a session has nowhere to leave for
        quality = 1.0 if complexity is None else predicted_quality(complexity.p_small_suffices, 0, 1)
        return ((_option(facts, policy, ladder[0].offers[0], 0, quality, None),),)
    weighed = []
    for at, rung in enumerate(ladder):
        if complexity is None:
            quality, tokens = (1.0 if at == last else 0.0), None
        else:
            quality = predicted_quality(complexity.p_small_suffices, at, last + 1)
            tokens = _predicted_tokens(complexity, at, last)
        weighed.append([_option(facts, policy, offer, at, quality, tokens) for offer in rung.offers])
    left_nano_usd = 0 if pin is None else _cost_of_leaving(pin, weighed)
    return tuple(tuple(_preferred(options, pin, left_nano_usd)) for options in weighed)


def spokesman(options: Options) -> Option:
    """Return the option that a tier is weighed by: its first ready one with room, else the first with room."""
    if len(options) == 1:
        return options[0]
    roomy = [option for option in options if option.offer.guard is None] or options
    return next((option for option in roomy if option.offer.deployment.readiness is Readiness.READY), roomy[0])


def choose(options: Sequence[Option], scale: Scale) -> Option:
    """Return the option that the head of this module describes."""
    if len(options) == 1:
        return options[0]
    excesses = _excesses(options, scale)
    order = [excesses[wish] for wish in reversed(scale.give_way)]

    def breaks(option: Option) -> tuple[float, ...]:
        return *[excess(option) for excess in order], option.expected_nano_usd, option.rung

    return min(options, key=breaks)


def described(
    options: Iterable[Options],
    scale: Scale,
    *,
    judged: bool,
    spared: Callable[[Option], Exclusion | None],
    weighed: Sequence[Option],
) -> tuple[Candidate, ...]:
    """Return all options as the decision record tells of them.

    Args:
        options: every option by tier.
        scale: what they were held against.
        judged: whether their quality was predicted.
        spared: what speaks against an option before it is weighed.
        weighed: those among which `choose` chose; empty when nothing was chosen.
    """
    excesses = _excesses(weighed, scale) if weighed else {}
    candidates = []
    for tier in options:
        for option in tier:
            excluded_by = spared(option)
            if excluded_by is None and excesses:
                excluded_by = _outweighed(option, excesses)
            candidates.append(_candidate(option, excluded_by, judged=judged))
    return tuple(candidates)


def _option(
    facts: RequestFacts, policy: TenantPolicy, offer: Offer, rung: int, quality: float, predicted: int | None
) -> Option:
    deployment, input_tokens = offer.deployment, facts.input_tokens
    tokens = deployment.expected_output_tokens if predicted is None else predicted
    if offer.step.max_tokens < tokens:
        tokens = offer.step.max_tokens
    cost = deployment.price.tokens_nano_usd(input_tokens, tokens * facts.n)
    forecast = deployment.forecast
    if forecast is None:
        return Option(rung, offer, quality, None, None, 0.0, cost)
    ttft_ms, total_ms = forecast.ttft_ms(input_tokens), forecast.total_ms(input_tokens, tokens)
    return Option(rung, offer, quality, ttft_ms, total_ms, _late_ratio(facts, policy, offer, ttft_ms, total_ms), cost)


def _late_ratio(facts: RequestFacts, policy: TenantPolicy, offer: Offer, ttft_ms: float, total_ms: float) -> float:
    """Return by how much the worse prediction passes its limit: the SLA's, or a nearer one that the caller has set."""
    sla = policy.sla.get(offer.step.tier, NO_SLA)
    late = 0.0
    for limit_ms in (sla.total_ms, facts.deadline_ms, None if facts.stream else facts.read_timeout_ms):
        if limit_ms and total_ms > limit_ms:
            late = max(late, total_ms / limit_ms - 1.0)
    if facts.stream and sla.ttft_ms and ttft_ms > sla.ttft_ms:
        late = max(late, ttft_ms / sla.ttft_ms - 1.0)
    return late


def _predicted_tokens(complexity: Complexity, rung: int, last: int) -> int | None:
    """Return the predicted output of a tier, between those of the cheapest and the dearest; None where unknown."""
    if complexity.expected_output_tokens is None or not last:
        return None
    cheapest, dearest = complexity.expected_output_tokens
    return max(1, round(cheapest + (dearest - cheapest) * rung / last))


def _cost_of_leaving(pin: Pin, weighed: Iterable[Iterable[Option]]) -> int:
    """Return the price of the tokens that the session's deployment holds: any other one reads them anew."""
    if not pin.cached_tokens:
        return 0
    for options in weighed:
        for option in options:
            if option.offer.deployment.name == pin.deployment:
                return option.offer.deployment.price.tokens_nano_usd(pin.cached_tokens, 0)
    return 0


def _preferred(options: list[Option], pin: Pin | None, left_nano_usd: int) -> list[Option]:
    if len(options) == 1 and not left_nano_usd:
        return options
    pinned = None if pin is None else pin.deployment
    if left_nano_usd:
        options = [
            option if option.offer.deployment.name == pinned else _dearer(option, left_nano_usd) for option in options
        ]
    if len(options) > 1:
        options.sort(key=lambda option: (option.late_ratio > 0.0, option.offer.deployment.name != pinned))
    return options


def _dearer(option: Option, by_nano_usd: int) -> Option:
    return Option(
        option.rung, option.offer, option.quality, option.ttft_ms, option.total_ms, option.late_ratio,
        option.expected_nano_usd + by_nano_usd,
    )  # fmt: skip


def _excesses(options: Sequence[Option], scale: Scale) -> Mapping[Wish, Callable[[Option], float]]:
    """Return for each wish by how much an option breaks it, 0 for what keeps it."""
    worth = _worth_nano_usd(options, scale.price_per_usd)
    return {
        "quality": lambda option: max(0.0, scale.floor - option.quality),
        "cost": lambda option: 0 if worth is None else max(0, option.expected_nano_usd - worth),
        "latency": lambda option: option.late_ratio,
    }


def _worth_nano_usd(options: Sequence[Option], price_per_usd: float) -> int | None:
    """Return the expected cost of what promises most after its cost at the shadow price; None while money is free."""
    if price_per_usd <= 0.0:
        return None
    price = price_per_usd / NANO_PER_USD
    best = max(
        options, key=lambda option: (option.quality - price * option.expected_nano_usd, -option.expected_nano_usd)
    )
    return best.expected_nano_usd


def _outweighed(option: Option, excesses: Mapping[Wish, Callable[[Option], float]]) -> Exclusion | None:
    return next((wish for wish, excess in excesses.items() if excess(option) > 0), None)


def _candidate(option: Option, excluded_by: Exclusion | None, *, judged: bool) -> Candidate:
    step = option.offer.step
    return Candidate(
        step.deployment,
        step.tier,
        option.quality if judged else None,
        option.ttft_ms,
        option.total_ms,
        option.late_ratio,
        option.expected_nano_usd,
        step.worst_case_nano_usd,
        excluded_by,
    )
