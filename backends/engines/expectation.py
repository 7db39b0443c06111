"""When an engine can be expected to answer: from how long its last start took, and from its failures in a row."""

import contextlib
import random
from pathlib import Path

from backends.engines.engine_state import EngineState, Timings
from backends.engines.launcher import EngineSpec
from core.clock import Clock


class Expectation:
    """The history of one engine's starts; `failures` are those in a row, which a minute of health forgives."""

    def __init__(self, spec: EngineSpec, timings: Timings, clock: Clock, file: Path) -> None:
        """Remember the last start.

        Args:
            spec: the recipe, with a first guess where nothing is remembered.
            timings: the patience.
            clock: for durations.
            file: keeps the seconds of the last start from run to run.
        """
        self.failures = 0
        self._spec = spec
        self._timings = timings
        self._clock = clock
        self._file = file
        self._start_s = _remembered_s(file) or spec.expected_start_s
        self._began_s = self._next_start_s = 0.0

    def began(self) -> None:
        """Note that a start begins."""
        self._began_s = self._clock.monotonic_s()

    def took(self, seconds: float) -> None:
        """Note how long a start took; where it cannot be kept, the next run guesses again."""
        self._start_s = seconds
        with contextlib.suppress(OSError):
            self._file.parent.mkdir(parents=True, exist_ok=True)
            self._file.write_text(f"{seconds:.3f}\n")

    def failed(self) -> None:
        """Note a failure, and with it when the next start is due."""
        self.failures += 1
        timings = self._timings
        delay_s = restart_delay_s(self.failures, timings.restart_base_s, timings.restart_limit_s)
        delay_s *= 1 + timings.jitter_ratio * random.random()  # noqa: S311 - spreads restarts, guards nothing
        self._next_start_s = self._clock.monotonic_s() + delay_s

    @property
    def back_off_s(self) -> float:
        """Return the seconds until the next start is due."""
        return max(0.0, self._next_start_s - self._clock.monotonic_s())

    def retry_after_s(self, state: EngineState, *, is_wanted: bool) -> float:
        """Estimate when the engine can answer: 0 when ready, else from the last start and the back-off, at least 1."""
        match state:
            case EngineState.READY:
                return 0.0
            case EngineState.STARTING | EngineState.WARMING:
                elapsed_s = self._clock.monotonic_s() - self._began_s
                left_s, late_s = self._start_s - elapsed_s, elapsed_s / 2
                return max(1.0, left_s if left_s > 0 else min(late_s, self._spec.start_timeout_s - elapsed_s))
            case EngineState.FAILED:
                return max(1.0, self._next_start_s - self._clock.monotonic_s() + self._start_s)
            case EngineState.SLEEPING:
                return max(1.0, self._start_s)
            case EngineState.DRAINING | EngineState.STOPPED:
                return max(1.0, self._start_s) if is_wanted else self._timings.restart_limit_s


def restart_delay_s(failures: int, base_s: float, limit_s: float) -> float:
    """Return seconds before the next start: 0 after the first failure in a row, then base x 2^n up to the limit.

    The schedule 0, 10, 20 ... 300 s is the one that GPUStack's worker uses for its model instances.
    """
    if failures <= 1:
        return 0.0
    return min(base_s * 2.0 ** min(failures - 2, 60), limit_s)


def _remembered_s(file: Path) -> float | None:
    try:
        seconds = float(file.read_text())
    except (OSError, ValueError):
        return None
    return seconds if 0 < seconds < float("inf") else None
