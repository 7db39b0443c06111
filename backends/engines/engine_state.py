"""Where an engine is in its life, and how patient its supervisor is."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal


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
    """The supervisor's patience, in seconds.

    Attributes:
        jitter_ratio: the most that a restart delay is stretched by.
        retire_s: how long requests may go on at a process that a reload replaces.
    """

    restart_base_s: float = 10.0
    restart_limit_s: float = 300.0
    jitter_ratio: float = 0.1
    healthy_after_s: float = 60.0
    poll_s: float = 0.05
    probe_interval_s: float = 5.0
    probe_timeout_s: float = 5.0
    probe_misses: int = 3
    retire_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Reload:
    """How far the last reload of an engine came.

    Attributes:
        stage: `starting` the new process, `draining` the old one after the swap, `in place` where both do not fit,
            `done`, `failed` with the old process serving on, or `none` so far.
        number: how many reloads were begun.
        problem: why it failed.
    """

    stage: Literal["none", "starting", "draining", "in place", "done", "failed"]
    number: int
    problem: str | None = None


class Fault(Exception):
    """This life of the engine is over; the message says why."""


class NoRoom(Fault):
    """The declared memory does not fit beside what others claimed."""


class Ended(Exception):
    """This life is over, and the state already says so."""


class StopAsked(Exception):
    """Somebody wants the engine stopped."""


class RestartAsked(Exception):
    """Somebody wants the engine drained and started anew, for which its requests get `patience_s` seconds."""

    def __init__(self, patience_s: float) -> None:
        super().__init__(patience_s)
        self.patience_s = patience_s


class SleepAsked(Exception):
    """Somebody wants an engine to sleep that can do so only by ending."""
