"""The order in which equal deployments of a tier are tried: the less loaded of two random ones first.

Deployments are equal when they stand side by side in the tier's list, serve the same model, cost the same and are both
hosted here or both not; any other order is the operator's and is kept. Load is peak EWMA (Twitter Finagle): the time to
the first token expected now, times the requests under way and one more. Two random choices suffice to keep the loads
close (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), and do not send everybody to the
one that looks best.

The choice is made while the registry's snapshot is taken, so that the planner stays a function of its input.

Requests that share a prefix go to the same local engine while it is not much busier than the others (rendezvous
hashing with bounded load), since that engine may still hold the prefix.
"""

import random
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import groupby

from backends.deployment import Deployment
from core.plan import DeploymentSnapshot, Readiness

BUSIER_RATIO = 1.25
UNKNOWN_MS = 1_000.0


def ordered(
    names: Sequence[str],
    deployments: Mapping[str, Deployment],
    seen: Mapping[str, DeploymentSnapshot],
    now_s: float,
    rng: random.Random,
    affinity: bytes | None = None,
) -> tuple[str, ...]:
    """Return the tier's deployments in the order to try them.

    Args:
        names: the tier's list.
        deployments: all deployments by name.
        seen: each of them as it is now.
        now_s: monotonic seconds.
        rng: draws the pairs.
        affinity: what requests that should meet the same engine have in common; None when it does not matter.
    """
    order: list[str] = []
    for _, equals in groupby(names, key=lambda name: _kind(deployments[name])):
        group = list(equals)
        order += group if len(group) == 1 else _among_equals(group, deployments, seen, now_s, rng, affinity)
    return tuple(order)


def has_equals(names: Sequence[str], deployments: Mapping[str, Deployment]) -> bool:
    """Tell whether deployments that stand side by side in a tier's list are equal; without any, its order stands."""
    before = deployments[names[0]]
    for name in names[1:]:
        one = deployments[name]
        if one.model == before.model and _kind(one) == _kind(before):
            return True
        before = one
    return False


def load(deployment: Deployment, now_s: float) -> float:
    """Return the peak-EWMA load; an idle deployment of which nothing is known costs nothing, so that it is tried."""
    tracker = deployment.latency
    forecast = tracker.forecast(now_s)
    if forecast is None:
        return tracker.under_way(now_s) * UNKNOWN_MS
    first_ms = forecast.base_ms + tracker.wait_ms(now_s) or forecast.ms_per_output_token
    return (first_ms or UNKNOWN_MS) * (tracker.under_way(now_s) + 1) / deployment.health.share(now_s)


def _kind(deployment: Deployment) -> tuple[object, ...]:
    return deployment.model, deployment.price, deployment.local


def _among_equals(
    group: list[str],
    deployments: Mapping[str, Deployment],
    seen: Mapping[str, DeploymentSnapshot],
    now_s: float,
    rng: random.Random,
    affinity: bytes | None,
) -> list[str]:
    able = [name for name in group if seen[name].readiness is Readiness.READY]
    rest = [name for name in group if seen[name].readiness is not Readiness.READY]
    loads = {name: load(deployments[name], now_s) for name in able}
    by_load = sorted(able, key=loads.__getitem__)
    if len(able) < 2:
        return able + rest
    first = min(rng.sample(able, 2), key=loads.__getitem__)
    if affinity is not None and deployments[group[0]].local:
        first = _near(able, deployments, affinity)
    return [first, *(name for name in by_load if name != first), *rest]


def _near(able: list[str], deployments: Mapping[str, Deployment], affinity: bytes) -> str:
    """Return the engine with the highest hash of those that are not much busier than the average."""
    bound = BUSIER_RATIO * (sum(deployments[name].latency.in_flight for name in able) + 1) / len(able)
    roomy = [name for name in able if deployments[name].latency.in_flight <= bound]
    return max(roomy, key=lambda name: blake2b(name.encode() + b"\0" + affinity, digest_size=8).digest())
