"""Where an engine is in its life, and how patient its supervisor is."""

from dataclasses import dataclass
from enum import StrEnum


class EngineState(StrEnum):
    """Where an engine is in its life."""

    STOPPED = "stopped"
    STARTING = "starting"
    WARMING = "warming"
    READY = "ready"
    DRAINING = "draining"
    SLEEPING = "sleeping"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Timings:
    """The supervisor's patience, in seconds; `jitter_ratio` is the most that a restart delay is stretched by."""

    restart_base_s: float = 10.0
    restart_limit_s: float = 300.0
    jitter_ratio: float = 0.1
    healthy_after_s: float = 60.0
    poll_s: float = 0.05
    probe_interval_s: float = 5.0
    probe_timeout_s: float = 5.0
    probe_misses: int = 3


class Fault(Exception):
    """This life of the engine is over; the message says why."""


class Ended(Exception):
    """This life is over, and the state already says so."""


class StopAsked(Exception):
    """Somebody wants the engine stopped."""


class RestartAsked(Exception):
    """Somebody wants the engine drained and started anew."""


class SleepAsked(Exception):
    """Somebody wants an engine to sleep that can do so only by ending."""
