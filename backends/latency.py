"""What one more request may expect of a deployment now: learned from what its recent attempts took.

The time to the first token is taken to be

    wait + base + ms_per_input_token * prompt tokens + ms_per_request * requests under way

with both slopes from a least-squares fit over recent streams, never below zero. Old observations lose half of their
weight each `HALF_LIFE_S`; with less than `LEAST_WEIGHT` of them left there is no forecast, so that a deployment nobody
dares to use is tried again. The fit follows slowly; two signals follow at once and are the `wait`:

- how far a recent attempt was beyond the usual 95th percentile: it jumps up and decays with `PEAK_S`, as in peak EWMA
  (Twitter Finagle, "Beyond Round Robin: Load Balancing for Latency");
- how far requests that still wait for their first token are beyond it already.

Where an engine tells what it has in its batch and before it (`told`), requests that others sent it are under way, too,
and the wait is at least what its queue takes at the pace at which a full batch ends (Little, "A proof for the queuing
formula L = lambda W", 1961).
"""

import math
from dataclasses import dataclass, field
from itertools import islice

import msgspec

from backends.quantiles import DecayingQuantiles
from core.plan import LatencyForecast

HALF_LIFE_S = 60.0
LEAST_WEIGHT = 0.5
SEASONED_WEIGHT = 4.5
"""What is late can be told from what is usual only after some attempts."""
PEAK_S = 10.0
HELD_S = 60.0
USUAL = 0.5
SLOW = 0.95
LOOKED_AT = 64
OUTRUN_FACTOR = 4.0
SPREAD_RATIO = 0.1
"""Values that spread by less than this share of their mean say little of a slope: half of it is believed at that."""
LEAST_SPREAD_RATIO = 1e-4
TOLD_S = 10.0
"""For how long an engine's word on its load holds; it is asked every two seconds."""


class Flight(msgspec.Struct, eq=False):
    """One request on its way at a deployment; `slow_ms` is when its first token is late, 0 when that is unknown."""

    started_s: float
    input_tokens: int
    others: float
    streamed: bool
    slow_ms: float
    first_byte_s: float | None = None
    is_trial: bool = False


@dataclass(slots=True)
class _Fit:
    """Decayed sums for a least-squares fit of y on x and z."""

    at_s: float = 0.0
    n: float = 0.0
    x: float = 0.0
    z: float = 0.0
    y: float = 0.0
    xx: float = 0.0
    zz: float = 0.0
    xz: float = 0.0
    xy: float = 0.0
    zy: float = 0.0

    def add(self, x: float, z: float, y: float, now_s: float) -> None:
        keep = 0.5 ** min(1_000.0, (now_s - self.at_s) / HALF_LIFE_S)
        self.at_s = now_s
        self.n, self.x, self.z, self.y = self.n * keep + 1, self.x * keep + x, self.z * keep + z, self.y * keep + y
        self.xx, self.zz, self.xz = self.xx * keep + x * x, self.zz * keep + z * z, self.xz * keep + x * z
        self.xy, self.zy = self.xy * keep + x * y, self.zy * keep + z * y

    def slopes(self) -> tuple[float, float]:
        """Return what each unit of x and of z adds, never below zero; without variance a slope is 0."""
        if self.n <= 1:
            return 0.0, 0.0
        xx, zz = _spread(self.xx, self.x, self.n), _spread(self.zz, self.z, self.n)
        xy, zy = self.xy - self.x * self.y / self.n, self.zy - self.z * self.y / self.n
        xz = self.xz - self.x * self.z / self.n
        only_x = xy / xx if xx and xy > 0 else 0.0
        only_z = zy / zz if zz and zy > 0 else 0.0
        determinant = xx * zz - xz * xz
        if determinant <= 1e-6 * xx * zz or determinant <= 0:
            return (only_x, 0.0) if only_x else (0.0, only_z)
        a, b = (xy * zz - zy * xz) / determinant, (zy * xx - xy * xz) / determinant
        if a >= 0 and b >= 0:
            return a, b
        return (only_x, 0.0) if b < 0 else (0.0, only_z)


def _spread(squares: float, total: float, n: float) -> float:
    """Return the sum of squared deviations for a slope's denominator, 0 where values are equal but for rounding.

    What the mean alone would make of it at `SPREAD_RATIO` is added (ridge regression; Hoerl, Kennard 1970), so that
    the slope of nearly equal values is small instead of arbitrary.
    """
    of_mean = total * total / n
    deviations = squares - of_mean
    return 0.0 if deviations <= LEAST_SPREAD_RATIO**2 * of_mean else deviations + SPREAD_RATIO**2 * of_mean


@dataclass(frozen=True, slots=True)
class _Told:
    """What an engine said of its load: requests in its batch and before it, and how many of both we did not send."""

    at_s: float
    running: float
    queued: float
    foreign: float


@dataclass(slots=True)
class LatencyTracker:
    """The recent latency of one deployment; moments are monotonic seconds, durations milliseconds."""

    _fit: _Fit = field(default_factory=_Fit)
    _base_ms: DecayingQuantiles = field(default_factory=lambda: DecayingQuantiles(HALF_LIFE_S))
    _ms_per_token: DecayingQuantiles = field(default_factory=lambda: DecayingQuantiles(HALF_LIFE_S))
    _output_tokens: DecayingQuantiles = field(default_factory=lambda: DecayingQuantiles(HALF_LIFE_S))
    _slopes: tuple[float, float] = (0.0, 0.0)
    _peak_ms: float = 0.0
    _peak_at_s: float = 0.0
    _waiting: dict[Flight, None] = field(default_factory=dict)
    _answered_s: float = -math.inf
    _load: _Told | None = None
    _has_learned: bool = False
    in_flight: int = 0

    def begin(self, input_tokens: int, *, streamed: bool, now_s: float) -> Flight:
        """Count one request as under way until `end`."""
        is_seasoned = self._base_ms.weight(now_s) >= SEASONED_WEIGHT
        others = self.under_way(now_s)
        slow_ms = self._fitted_ms(input_tokens, others, SLOW) if is_seasoned else 0.0
        flight = Flight(now_s, input_tokens, others, streamed, slow_ms)
        self.in_flight += 1
        if streamed:
            self._waiting[flight] = None
        return flight

    def first_byte(self, flight: Flight, now_s: float) -> None:
        """Learn from the first content of a stream; a plain answer has no first token worth learning."""
        self._waiting.pop(flight, None)
        flight.first_byte_s = now_s
        if not flight.streamed:
            return
        self._answered_s = max(self._answered_s, flight.started_s)
        took_ms = (now_s - flight.started_s) * 1000
        self._fit.add(flight.input_tokens, flight.others, took_ms, now_s)
        self._slopes = self._fit.slopes()
        per_token, per_request = self._slopes
        self._has_learned = True
        self._base_ms.add(took_ms - per_token * flight.input_tokens - per_request * flight.others, now_s)
        if flight.slow_ms:
            self._learn_excess(took_ms - flight.slow_ms, now_s)

    def complete(self, flight: Flight, output_tokens: int, now_s: float) -> None:
        """Learn the pace of a complete answer."""
        if output_tokens <= 0:
            return
        self._has_learned = True
        self._output_tokens.add(output_tokens, now_s)
        if flight.streamed and flight.first_byte_s is not None:
            took_ms, gaps = (now_s - flight.first_byte_s) * 1000, output_tokens - 1
        else:
            before_ms = self._fitted_ms(flight.input_tokens, flight.others, USUAL)
            took_ms, gaps = max(0.0, (now_s - flight.started_s) * 1000 - before_ms), output_tokens
            if self._ms_per_token.weight(now_s) >= SEASONED_WEIGHT:
                self._learn_excess(took_ms - self._ms_per_token.quantile(SLOW) * output_tokens, now_s)
        if gaps > 0:
            self._ms_per_token.add(took_ms / gaps, now_s)

    def outrun(self, flight: Flight, now_s: float) -> None:
        """Learn from an attempt that was given up for a faster one, unless it was not late itself.

        How long it would have taken is unknown; it is taken to be `OUTRUN_FACTOR` times as long as it had.
        """
        took_ms = (now_s - flight.started_s) * 1000
        if flight.first_byte_s is None and 0 < flight.slow_ms < took_ms:
            self._learn_excess(OUTRUN_FACTOR * took_ms - flight.slow_ms, now_s)

    def end(self, flight: Flight) -> None:
        """Say that a request is no longer under way, however it ended; called once."""
        self._waiting.pop(flight, None)
        self.in_flight -= 1

    def told(self, running: float, queued: float, now_s: float) -> None:
        """Take an engine's own word on what is in its batch, and what waits for it."""
        self._load = _Told(now_s, running, queued, max(0.0, running + queued - self.in_flight))

    def under_way(self, now_s: float) -> float:
        """Return how many requests the deployment has, with those of others that it told of lately."""
        load = self._load
        return self.in_flight if load is None or now_s - load.at_s > TOLD_S else self.in_flight + load.foreign

    def engine_wait_ms(self, now_s: float) -> float:
        """Return how long the queue before an engine's batch takes, as it told lately; 0 when it told nothing."""
        load = self._load
        if load is None or not load.queued or now_s - load.at_s > TOLD_S:
            return 0.0
        usual_ms = self._base_ms.quantile(USUAL)
        usual_ms += self._ms_per_token.quantile(USUAL) * self._output_tokens.quantile(USUAL)
        return load.queued / max(1.0, load.running) * usual_ms

    def forecast(self, now_s: float) -> LatencyForecast | None:
        """Return what to expect, or None when too little was seen lately."""
        if not self._has_learned:
            return None
        knows_first = self._base_ms.weight(now_s) >= LEAST_WEIGHT
        knows_pace = self._ms_per_token.weight(now_s) >= LEAST_WEIGHT
        if not (knows_first or knows_pace):
            return None
        per_token, per_request = self._slopes if knows_first else (0.0, 0.0)
        queue_ms = self.wait_ms(now_s)
        if per_request:
            queue_ms += per_request * self.under_way(now_s)
        if self._load is not None:
            queue_ms = max(queue_ms, self.engine_wait_ms(now_s))
        base_ms = self._base_ms.quantile(USUAL) if knows_first else 0.0
        return LatencyForecast(queue_ms, base_ms, per_token, self._ms_per_token.quantile(USUAL) if knows_pace else 0.0)

    def usual_output_tokens(self, now_s: float) -> int:
        """Return the median length of recent answers, 1 while nothing is known."""
        if self._output_tokens.weight(now_s) < LEAST_WEIGHT:
            return 1
        return max(1, round(self._output_tokens.quantile(USUAL)))

    def slow_first_byte_ms(self, input_tokens: int, now_s: float) -> float | None:
        """Return the time within which 19 of 20 such requests begin to answer now, or None when unknown."""
        if self._base_ms.weight(now_s) < LEAST_WEIGHT:
            return None
        by_load_ms = self._fitted_ms(input_tokens, self.under_way(now_s), SLOW) + self.wait_ms(now_s)
        return max(by_load_ms, self._fitted_ms(input_tokens, 0.0, SLOW) + self.engine_wait_ms(now_s))

    def slow_total_ms(self, input_tokens: int, output_tokens: int, now_s: float) -> float | None:
        """Return the time within which 19 of 20 such answers are complete now, or None when unknown."""
        if self._ms_per_token.weight(now_s) < LEAST_WEIGHT:
            return None
        first_ms = self.slow_first_byte_ms(input_tokens, now_s)
        started_ms = self.wait_ms(now_s) if first_ms is None else first_ms
        return started_ms + self._ms_per_token.quantile(SLOW) * output_tokens

    def wait_ms(self, now_s: float) -> float:
        """Return how late requests are now, beyond what is usual.

        When one is late again soon after a peak, it is as bad as it was: the peak counts in full.
        """
        late_ms = self._lateness_ms(now_s) if self._waiting else 0.0
        if not self._peak_ms:
            return late_ms
        age_s = now_s - self._peak_at_s
        kept = 1.0 if late_ms and age_s < HELD_S else math.exp(-age_s / PEAK_S)
        peak_ms = self._peak_ms * kept
        return peak_ms if peak_ms > late_ms else late_ms

    def _lateness_ms(self, now_s: float) -> float:
        """Return the lateness of the one that has waited longest, unless a later one was answered: then it is alone."""
        for flight in islice(self._waiting, LOOKED_AT):
            if flight.slow_ms and flight.started_s >= self._answered_s:
                return max(0.0, (now_s - flight.started_s) * 1000 - flight.slow_ms)
        return 0.0

    def _learn_excess(self, excess_ms: float, now_s: float) -> None:
        """Follow a rise at once and a fall slowly."""
        kept = math.exp((self._peak_at_s - now_s) / PEAK_S)
        self._peak_ms = max(excess_ms, self._peak_ms * kept + max(0.0, excess_ms) * (1 - kept))
        self._peak_at_s = now_s

    def _fitted_ms(self, input_tokens: int, others: float, quantile: float) -> float:
        per_token, per_request = self._slopes
        return self._base_ms.quantile(quantile) + per_token * input_tokens + per_request * others
