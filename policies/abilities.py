"""SLAs against what deployments have been seen to do: a limit that many requests would miss is told before it hurts."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from core.rules import Sla
from policies.checking import CheckedTenant
from policies.findings import Finding, warning

TOLERATED_RATIO = 0.05
"""Warn when more than this share of the measured requests missed the limit."""
LEAST_SAMPLES = 20


@dataclass(frozen=True, slots=True)
class Measured:
    """What complete attempts on one deployment took lately: milliseconds, and output tokens per second."""

    ttft_ms: tuple[float, ...] = ()
    total_ms: tuple[float, ...] = ()
    output_tokens_per_s: tuple[float, ...] = ()


def missed_slas(
    tenant: CheckedTenant, tiers: Mapping[str, tuple[str, ...]], measured: Mapping[str, Measured]
) -> Iterator[Finding]:
    """Yield a warning for each limit of a tier that its best measured deployment would have missed too often.

    A deployment with fewer than `LEAST_SAMPLES` measurements of a kind says nothing.
    """
    for tier, sla in tenant.policy.sla.items():
        for key, samples, misses in _limits(sla, [measured[name] for name in tiers.get(tier, ()) if name in measured]):
            if misses <= TOLERATED_RATIO:
                continue
            message = (
                f"{misses:.0%} of the last {len(samples)} answers of the tier {tier!r} missed this "
                f"(median {_at(samples, 0.5):.0f}, p95 {_at(samples, 0.95):.0f}); "
                "relax it, or serve the tier faster"
            )
            yield warning("sla-below-ability", ("sla", tier, key), message, tenant.wrote, tenant.file)


def _limits(sla: Sla, seen: Sequence[Measured]) -> Iterator[tuple[str, Sequence[float], float]]:
    """Yield each limit's key, the samples of the deployment that misses it least, and the share that misses it."""
    kinds = (
        ("ttft_ms", sla.ttft_ms, [one.ttft_ms for one in seen], 1),
        ("total_ms", sla.total_ms, [one.total_ms for one in seen], 1),
        ("min_output_tokens_per_s", sla.min_output_tokens_per_s, [one.output_tokens_per_s for one in seen], -1),
    )
    for key, limit, groups, sign in kinds:
        enough = [samples for samples in groups if len(samples) >= LEAST_SAMPLES]
        if limit is None or not enough:
            continue
        shares = [sum(sign * sample > sign * limit for sample in samples) / len(samples) for samples in enough]
        best = min(range(len(enough)), key=shares.__getitem__)
        yield key, enough[best], shares[best]


def _at(samples: Sequence[float], quantile: float) -> float:
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
