"""What became of an answer: the word of whoever used it, and the seam to whoever learns from it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

OutcomeKind = Literal["answer", "cache"]
"""Of the answer as such, or of whether a cached answer fitted the question."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One word on one request; `score` in [0, 1], 1 being right."""

    request_id: str
    tenant: str
    kind: OutcomeKind
    score: float
    at: datetime


class OutcomeSink(Protocol):
    """Takes outcomes; each was checked to be about a request of its tenant."""

    async def take(self, outcome: Outcome) -> None:
        """Keep the outcome, or learn from it.

        Raises:
            OSError: it could not be kept; whoever said it may say it again.
        """
        ...
