"""Learn from a tenant's own outcomes, try what was learned against the router in force, and promote or take it back.

Per tenant: a bandit that always learns, one candidate that was frozen from it and is on trial, and the promoted one.
A candidate takes over only when a bound that holds at all times says that it gains utility; it is replaced by a newer
one when it is shown to be worse or its time is up. The n-th candidate's trial may err with probability
ERROR / (n (n + 1)), so all of them together with ERROR at most. What is in force is tried against the plain score
all the time, and taken back as soon as that is shown to be better. Deterministic; the state is bounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

import msgspec
import numpy as np

from router.bandit import Bandit, Frozen, SavedArm
from router.chance import Chance
from router.confidence import Bound
from router.context import SIZE, Doubles
from router.trial import Evidence, Trial, compared_gain, doubly_robust, reach_of, trial_of

ERROR = 0.05
LEAST_OUTCOMES = 100
SAID_LIFE, COMPARED_LIFE = 16_000, 500
LONGEST_LIFE = 64_000
COMPARED_WEIGHT = 0.5
RETRY_WEIGHT = 0.25
KEPT_EVENTS = 50
What = Literal["promoted", "demoted", "rolled_back", "replaced"]


class Event(msgspec.Struct, frozen=True):
    """Something that happened to a version; `said` and `compared` are the evidence at that time."""

    at: datetime
    what: What
    version: int
    by: str
    said: Evidence
    compared: Evidence


class SavedVersion(msgspec.Struct, frozen=True):
    """A frozen router and its trial."""

    number: int
    frozen_at: datetime
    cheapest: bytes
    dearest: bytes
    trial: Trial


class SavedTenant(msgspec.Struct, frozen=True):
    """The whole state of one tenant."""

    tiers: tuple[str, ...]
    arms: tuple[SavedArm, ...]
    outcomes: int
    seen: tuple[int, ...]
    numbered: int
    candidate: SavedVersion | None
    promoted: SavedVersion | None
    events: tuple[Event, ...]


@dataclass(slots=True)
class Version:
    """A frozen router; a candidate is on trial against what is in force, the promoted one has the score against it."""

    number: int
    frozen_at: datetime
    router: Frozen
    trial: Trial

    def saved(self) -> SavedVersion:
        """Return the state."""
        cheapest, dearest = (one.astype("<f8").tobytes() for one in (self.router.cheapest, self.router.dearest))
        return SavedVersion(self.number, self.frozen_at, cheapest, dearest, self.trial)


class Status(msgspec.Struct, frozen=True):
    """What is known of a tenant's learning, as it is told."""

    tenant: str
    outcomes: int
    in_force: int
    candidate: int
    verdict: str
    said: Evidence | None
    compared: Evidence | None
    against_said: Evidence | None
    against_compared: Evidence | None
    events: tuple[Event, ...]


@dataclass(slots=True)
class TenantLearner:
    """The state of one tenant; `tiers` are cheapest first."""

    tiers: tuple[str, ...]
    bandit: Bandit = field(init=False)
    seen: dict[str, int] = field(init=False)
    outcomes: int = 0
    numbered: int = 0
    candidate: Version | None = None
    promoted: Version | None = None
    events: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bandit, self.seen = Bandit(self.tiers), dict.fromkeys(self.tiers, 0)

    def said(self, chance: Chance, reward: float, now: datetime) -> None:
        """Learn from a user's word on the answer, in [0, 1]."""
        quality = {one.tier: self.bandit.quality(one.tier, chance.context.x) for one in chance.allowed}
        least = min(one.propensity for one in chance.allowed)
        if least > 0.0:
            for version, challenger in self._challengers(chance):
                if version.trial.said.reach < reach_of(least):
                    version.trial.said = Bound(reach_of(least))
                version.trial.note_said(doubly_robust(chance, challenger, quality, reward))
        self.bandit.learn(chance.answered, chance.context.x, reward)
        self._counted(now, least, chance.answered)

    def compared(self, chance: Chance, small_is_right: bool, now: datetime) -> None:
        """Learn from both ends' answers to one request, of which the dearest tier's counts as right."""
        quality = {self.tiers[0]: float(small_is_right), self.tiers[-1]: 1.0}
        for version, challenger in self._challengers(chance):
            gain = compared_gain(chance, challenger, quality)
            if gain is not None:
                version.trial.note_compared(gain)
        for tier, reward in quality.items():
            self.bandit.learn(tier, chance.context.x, reward, COMPARED_WEIGHT)
        self._counted(now, min(one.propensity for one in chance.allowed), *quality)

    def asked_again(self, chance: Chance) -> None:
        """Learn, weakly, that the answer did not do; it is no evidence in a trial."""
        self.bandit.learn(chance.answered, chance.context.x, 0.0, RETRY_WEIGHT)

    @property
    def ends(self) -> tuple[str, str]:
        """Return the cheapest and the dearest tier, between which a router decides."""
        return self.tiers[0], self.tiers[-1]

    @property
    def in_force(self) -> int:
        """Return the number of the promoted version; 0 while the plain score is in force."""
        return 0 if self.promoted is None else self.promoted.number

    def due(self, *, promote: bool) -> What | None:
        """Return what the evidence asks for; `promote` tells whether a candidate may take over by itself."""
        if self.promoted is not None and self.promoted.trial.is_won:
            return "demoted"
        if self.candidate is None:
            return None
        if self.candidate.trial.is_won:
            return "promoted" if promote else None
        return "replaced" if self.candidate.trial.is_lost or _is_over(self.candidate) else None

    def carry_out(self, what: What, now: datetime) -> Event:
        """Do what `due` returned."""
        if what == "promoted":
            return self.promote(now, "gateway")
        if what == "demoted":
            return self.take_back(now, "demoted", "gateway")
        assert self.candidate is not None, "a candidate is due to be replaced"
        event = self._event(now, "replaced", self.candidate, "gateway")
        self.candidate = None
        return event

    def promote(self, now: datetime, by: str) -> Event:
        """Put the candidate in force.

        Raises:
            ValueError: there is none, or its evidence does not suffice.
        """
        candidate = self.candidate
        if candidate is None or not candidate.trial.is_won:
            raise ValueError(self.verdict)
        event = self._event(now, "promoted", candidate, by)
        watch = Trial(ERROR, Bound(candidate.trial.said.reach), Bound(candidate.trial.compared.reach))
        self.promoted, self.candidate = Version(candidate.number, candidate.frozen_at, candidate.router, watch), None
        return event

    def take_back(self, now: datetime, what: What, by: str) -> Event:
        """Put the plain score back in force; candidates begin anew.

        Raises:
            ValueError: nothing learned is in force.
        """
        if self.promoted is None:
            raise ValueError("nothing learned is in force")
        event = self._event(now, what, self.promoted, by)
        self.promoted = self.candidate = None
        return event

    @property
    def verdict(self) -> str:
        """Return in words how the candidate stands."""
        if self.candidate is None:
            ends = " and ".join(f"{self.seen[tier]} of {tier}" for tier in self.ends)
            return f"not enough evidence yet: outcomes {ends}, a candidate needs {LEAST_OUTCOMES} of each"
        trial = self.candidate.trial
        if trial.is_won:
            return f"candidate {self.candidate.number} is better than what is in force"
        rows = f"{trial.said.rows} words of users, {trial.compared.rows} comparisons"
        return f"not enough evidence yet on candidate {self.candidate.number}: {rows}"

    def status(self, tenant: str) -> Status:
        """Return what may be told."""
        tried = None if self.candidate is None else self.candidate.trial
        watch = None if self.promoted is None else self.promoted.trial
        return Status(
            tenant=tenant,
            outcomes=self.outcomes,
            in_force=self.in_force,
            candidate=0 if self.candidate is None else self.candidate.number,
            verdict=self.verdict,
            said=None if tried is None else tried.evidence(tried.said),
            compared=None if tried is None else tried.evidence(tried.compared),
            against_said=None if watch is None else watch.evidence(watch.said),
            against_compared=None if watch is None else watch.evidence(watch.compared),
            events=tuple(self.events),
        )

    def saved(self) -> SavedTenant:
        """Return the whole state."""
        return SavedTenant(
            self.tiers,
            tuple(arm.saved() for arm in self.bandit.arms.values()),
            self.outcomes,
            tuple(self.seen.values()),
            self.numbered,
            None if self.candidate is None else self.candidate.saved(),
            None if self.promoted is None else self.promoted.saved(),
            tuple(self.events),
        )

    def _challengers(self, chance: Chance) -> Sequence[tuple[Version, str]]:
        """Return whose trial the request is part of, and what each challenger would have chosen."""
        pairs: list[tuple[Version, str]] = []
        if chance.in_force != self.in_force:
            return pairs
        if self.candidate is not None:
            pairs.append((self.candidate, chance.choice(self.candidate.router.p_small_suffices(chance.context.x))))
        if self.promoted is not None:
            pairs.append((self.promoted, chance.choice(chance.context.p)))
        return pairs

    def _counted(self, now: datetime, least_propensity: float, *tiers: str) -> None:
        """Freeze a candidate when there is none and enough was learned; begin the watch anew when its time is up."""
        self.outcomes += 1
        for tier in tiers:
            self.seen[tier] += 1
        if self.promoted is not None and _is_over(self.promoted):
            old = self.promoted.trial
            self.promoted.trial = Trial(ERROR, Bound(old.said.reach), Bound(old.compared.reach))
        if self.candidate is None and min(self.seen[tier] for tier in self.ends) >= LEAST_OUTCOMES:
            self.numbered += 1
            alpha = ERROR / (self.numbered * (self.numbered + 1))
            trial = trial_of(alpha, least_propensity or 1.0)
            self.candidate = Version(self.numbered, now, self.bandit.frozen(), trial)

    def _event(self, now: datetime, what: What, version: Version, by: str) -> Event:
        trial = version.trial
        said, compared = trial.evidence(trial.said), trial.evidence(trial.compared)
        event = Event(now, what, version.number, by, said, compared)
        self.events = [*self.events, event][-KEPT_EVENTS:]
        return event


def restored(saved: SavedTenant) -> TenantLearner:
    """Return the learner of a saved state.

    Raises:
        ValueError: the state is not of this program's size.
    """
    learner = TenantLearner(saved.tiers)
    for arm, one in zip(learner.bandit.arms.values(), saved.arms, strict=True):
        arm.restore(one)
    learner.seen = dict(zip(saved.tiers, saved.seen, strict=True))
    learner.outcomes, learner.numbered, learner.events = saved.outcomes, saved.numbered, list(saved.events)
    learner.candidate = None if saved.candidate is None else _version(saved.candidate)
    learner.promoted = None if saved.promoted is None else _version(saved.promoted)
    return learner


def _version(saved: SavedVersion) -> Version:
    return Version(
        saved.number, saved.frozen_at, Frozen(_doubles(saved.cheapest), _doubles(saved.dearest)), saved.trial
    )


def _doubles(content: bytes) -> Doubles:
    return np.frombuffer(content, "<f8").reshape(SIZE).astype(np.float64)


def _is_over(version: Version) -> bool:
    """Tell whether a trial had its time, which doubles from candidate to candidate."""
    times: int = 2 ** min(version.number - 1, 8)
    said, compared = min(SAID_LIFE * times, LONGEST_LIFE), min(COMPARED_LIFE * times, LONGEST_LIFE)
    return version.trial.said.rows >= said or version.trial.compared.rows >= compared
