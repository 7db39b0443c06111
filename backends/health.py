"""Whether a deployment should be sent requests: a breaker, an outlier check, a cool-down that it asked for, slow start.

Five faults in a row open the breaker for ten seconds, twice as long each time it opens again without a success between,
up to two minutes. Then one request at a time is let through on trial: its success closes the breaker, its fault opens
it again. A deployment that fails half of what it is sent lately, without five in a row, is taken out the same way
while another one can stand in for it. Answers that broke off after their first byte count like any other fault; what
the client caused never does. A 429 or 503 with `Retry-After` is a cool-down, not a fault of its own.

Who comes back gets its share gradually, over `RAMP_S`.
"""

import math
from dataclasses import dataclass, field
from typing import Literal

from core.plan import Readiness

BreakerState = Literal["closed", "open", "trial", "cooling"]
FAILURES_TO_OPEN = 5
OPEN_S = 10.0
LONGEST_OPEN_S = 120.0
TRIAL_S = 30.0
LONGEST_COOL_S = 300.0
RAMP_S = 10.0
LEAST_SHARE = 0.1
OUTLIER_WEIGHT = 10.0
OUTLIER_RATIO = 0.5
OUTLIER_HALF_LIFE_S = 15.0


@dataclass(slots=True)
class _Recent:
    """Decayed counts of good and failed attempts."""

    at_s: float = 0.0
    attempts: float = 0.0
    faults: float = 0.0

    def add(self, *, fault: bool, now_s: float) -> None:
        keep = math.pow(0.5, min(1_000.0, (now_s - self.at_s) / OUTLIER_HALF_LIFE_S))
        self.at_s = now_s
        self.attempts = self.attempts * keep + 1
        self.faults = self.faults * keep + fault

    @property
    def is_outlier(self) -> bool:
        return self.attempts >= OUTLIER_WEIGHT and self.faults >= OUTLIER_RATIO * self.attempts


@dataclass(slots=True)
class Health:
    """The health of one deployment; all moments are monotonic seconds."""

    failures_in_a_row: int = 0
    openings: int = 0
    ejections: int = 0
    open_until_s: float | None = None
    cool_until_s: float = 0.0
    ready_since_s: float | None = None
    _recent: _Recent = field(default_factory=_Recent)

    def readiness(self, now_s: float) -> Readiness:
        """Return DOWN while the breaker is open or the deployment cools down."""
        return Readiness.DOWN if self.retry_after_s(now_s) > 0.0 else Readiness.READY

    def breaker(self, now_s: float) -> BreakerState:
        """Return the breaker's state: `trial` lets one request at a time through, `cooling` was asked for."""
        if self.open_until_s is not None:
            return "open" if now_s < self.open_until_s else "trial"
        return "cooling" if now_s < self.cool_until_s else "closed"

    def retry_after_s(self, now_s: float) -> float:
        """Return the seconds until a request may be let through, 0 when it may now."""
        until_s = self.cool_until_s
        if self.open_until_s is not None and self.open_until_s > until_s:
            until_s = self.open_until_s
        return until_s - now_s if until_s > now_s else 0.0

    def begin(self, now_s: float) -> bool:
        """Note that a request is sent; True says that it is the trial after an opening, the only one for a while."""
        is_trial = self.open_until_s is not None and now_s >= self.open_until_s
        if is_trial:
            self.open_until_s = now_s + TRIAL_S
        return is_trial

    def undecided(self, now_s: float) -> None:
        """Note that a trial said nothing about the deployment, so that another may follow."""
        if self.open_until_s is not None:
            self.open_until_s = min(self.open_until_s, now_s)

    def succeed(self, now_s: float) -> None:
        """Close the breaker; the share of requests grows from now on."""
        self._recent.add(fault=False, now_s=now_s)
        self.failures_in_a_row = 0
        if self.open_until_s is not None:
            self.open_until_s, self.openings, self.ready_since_s = None, 0, now_s
            self._recent = _Recent()

    def fail(self, now_s: float, *, may_eject: bool, is_trial: bool = False) -> None:
        """Count a fault; those of requests that were sent before the breaker opened do not lengthen its time.

        Args:
            now_s: when it was noticed.
            may_eject: another deployment can stand in.
            is_trial: what `begin` said of the request.
        """
        self._recent.add(fault=True, now_s=now_s)
        self.failures_in_a_row += 1
        if self.open_until_s is not None and now_s < self.open_until_s and not is_trial:
            return
        was_open = self.open_until_s is not None
        if was_open or self.failures_in_a_row >= FAILURES_TO_OPEN or (may_eject and self._recent.is_outlier):
            self.open(now_s)

    def open(self, now_s: float) -> None:
        """Send nothing for a while, longer each time."""
        if self.open_until_s is None:
            self.ejections += 1
        self.open_until_s = now_s + min(LONGEST_OPEN_S, OPEN_S * 2.0 ** min(self.openings, 10))
        self.openings += 1

    def cool(self, seconds: float, now_s: float) -> None:
        """Send nothing for as long as the deployment asked, five minutes at most; a second call may extend that."""
        self.cool_until_s = max(self.cool_until_s, now_s + min(seconds, LONGEST_COOL_S))

    def share(self, now_s: float) -> float:
        """Return which part of its usual share of requests the deployment gets, from 0.1 to 1."""
        if self.ready_since_s is None:
            return 1.0
        return min(1.0, max(LEAST_SHARE, (now_s - self.ready_since_s) / RAMP_S))
