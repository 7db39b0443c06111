"""A linear bandit with forgetting: what each tier's answers are worth, learned from outcomes, beginning at the score.

One ridge regression per tier on the 32 numbers of `router.context` (the model of LinUCB; Li et al. 2010, section 3.1),
drawn towards what the planner believes anyway: of K tiers the k-th is worth p + (1 - p) * k / (K - 1). So it says
nothing new until outcomes do. Each outcome of a tier makes what it learned before count FORGETTING times as much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from router.context import P_AT, SIZE, Doubles

FORGETTING = 0.997
RIDGE = 10.0
LEAST_P, MOST_P = 0.001, 0.999


def believed(rung: int, rungs: int) -> Doubles:
    """Return the (32,) weights of what is believed of a tier before any outcome."""
    weights = np.zeros(SIZE)
    share = rung / (rungs - 1) if rungs > 1 else 0.0
    weights[0], weights[P_AT] = share, 1.0 - share
    return weights


class SavedArm(msgspec.Struct, frozen=True, array_like=True):
    """One tier's regression as bytes of little-endian doubles."""

    precision: bytes
    moment: bytes


@dataclass(slots=True)
class Arm:
    """One tier's regression: (32, 32) precision, (32,) moment of what the belief left unexplained, (32,) weights."""

    belief: Doubles
    precision: Doubles = field(default_factory=lambda: RIDGE * np.eye(SIZE))
    moment: Doubles = field(default_factory=lambda: np.zeros(SIZE))
    weights: Doubles = field(init=False)

    def __post_init__(self) -> None:
        self._solve()

    def learn(self, x: Doubles, reward: float, weight: float) -> None:
        """Take one outcome in; `weight` 1 is a whole one."""
        unexplained = reward - float(self.belief @ x)
        self.precision = FORGETTING * self.precision + weight * np.outer(x, x)
        self.precision.flat[:: SIZE + 1] += (1.0 - FORGETTING) * RIDGE
        self.moment = FORGETTING * self.moment + weight * unexplained * x
        self._solve()

    def saved(self) -> SavedArm:
        """Return the state as bytes."""
        return SavedArm(self.precision.astype("<f8").tobytes(), self.moment.astype("<f8").tobytes())

    def restore(self, saved: SavedArm) -> None:
        """Take a saved state over.

        Raises:
            ValueError: it has another size, or holds what is no number.
        """
        precision = np.frombuffer(saved.precision, "<f8").reshape(SIZE, SIZE).astype(np.float64)
        moment = np.frombuffer(saved.moment, "<f8").reshape(SIZE).astype(np.float64)
        if not (np.isfinite(precision).all() and np.isfinite(moment).all()):
            raise ValueError("a learned state that is not finite")
        self.precision, self.moment = precision, moment
        self._solve()

    def _solve(self) -> None:
        self.weights = self.belief + np.linalg.solve(self.precision, self.moment)


@dataclass(frozen=True, slots=True)
class Frozen:
    """A router as it was learned at some time: (32,) weights of the cheapest and of the dearest tier."""

    cheapest: Doubles
    dearest: Doubles

    def p_small_suffices(self, x: Doubles) -> float:
        """Return 1 - the predicted gain of the dearest tier over the cheapest, within (0, 1)."""
        gain = _within(float(self.dearest @ x)) - _within(float(self.cheapest @ x))
        return min(max(1.0 - gain, LEAST_P), MOST_P)


class Bandit:
    """The regressions of all tiers, cheapest first."""

    def __init__(self, tiers: Sequence[str]) -> None:
        self.arms: Mapping[str, Arm] = {tier: Arm(believed(at, len(tiers))) for at, tier in enumerate(tiers)}

    def quality(self, tier: str, x: Doubles) -> float:
        """Return the predicted worth of the tier's answer in [0, 1]."""
        return _within(float(self.arms[tier].weights @ x))

    def learn(self, tier: str, x: Doubles, reward: float, weight: float = 1.0) -> None:
        """Take one outcome in `[0, 1]` of a tier's answer in."""
        self.arms[tier].learn(x, reward, weight)

    def frozen(self) -> Frozen:
        """Return the router that this is now."""
        arms = list(self.arms.values())
        return Frozen(arms[0].weights.copy(), arms[-1].weights.copy())


def _within(quality: float) -> float:
    return min(max(quality, 0.0), 1.0)
