"""What the path of a request needs of the router's learning; `gateway.learning.router_learning` does it."""

from collections.abc import Callable
from typing import Protocol

from backends.attempt import Captured
from core.cached import Vector
from core.plan import Complexity
from gateway.trace_draft import TraceDraft


class Learns(Protocol):
    """Judges with what was learned, draws what explores, and takes note of what was answered; never waits or raises."""

    def judged(self, draft: TraceDraft, judged: Complexity | None, vector: Vector | None) -> Complexity | None:
        """Return what the learned router in force makes of a score."""
        ...

    def draw(self, draft: TraceDraft) -> float | None:
        """Return what decides whether this request explores; None where none may."""
        ...

    def note(self, draft: TraceDraft, tier: str) -> None:
        """Take note that `tier` begins to answer."""
        ...

    def answered(self, draft: TraceDraft, captured: Callable[[], Captured | None]) -> None:
        """Take note of a complete answer."""
        ...
