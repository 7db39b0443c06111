"""What the pipeline hands to the HTTP surface: headers now, bytes as they come."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from backends.frames import Outlet
from core.money import Usage

Headers = tuple[tuple[str, str], ...]
FlowTo = Callable[[Outlet | None], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer with status 200; `chunks` is one whole body, or SSE frames when `stream` is set."""

    stream: bool
    headers: Headers
    chunks: AsyncIterator[bytes]
    content_type: str = "application/json"
    flow_to: FlowTo | None = None
    """Where it is there: lets frames pass whoever iterates over `chunks`, to an outlet that takes several at once."""


@dataclass(frozen=True, slots=True)
class AnswerHead:
    """Who answers: what a leader tells the followers of an identical request before the first bytes."""

    tier: str
    deployment: str
    reason: str


@dataclass(frozen=True, slots=True)
class AnswerTail:
    """What a complete answer came to: what a leader tells its followers after the last bytes."""

    usage: Usage | None
    cost_nano_usd: int


Published = AnswerHead | bytes | AnswerTail
