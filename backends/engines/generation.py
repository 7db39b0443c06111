"""The seam between our OpenAI-compatible server and a library that generates tokens."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from backends.engines.detokenise import Detokeniser

FinishReason = Literal["stop", "length"]
SOURCE_PLACE = re.compile(r"^(\[[\d:]+\] )?\S+\.(cc|cpp|hpp|h):\d+:\s*")


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens; a temperature of 0 is greedy."""

    max_tokens: int
    temperature: float
    top_p: float = 1.0
    top_k: int | None = None
    seed: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    json_schema: str | None = None
    ignore_eos: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens of one completion as they arrive; the last piece has a finish reason or an error."""

    index: int
    token_ids: Sequence[int]
    finish_reason: FinishReason | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Gauges:
    """The engine's state after its last step.

    Attributes:
        cache_usage_ratio: used share of the KV cache, in [0, 1].
        steps: how often the whole batch advanced by a token or a chunk of prompt.
        stalled_s: seconds without a finished step while there was work.
        failure: why the engine can no longer generate, or None.
        drafted_tokens: tokens guessed ahead so far, at most; None where nothing is guessed.
        accepted_tokens: how many of them stood.
    """

    running: int = 0
    waiting: int = 0
    cache_usage_ratio: float = 0.0
    steps: int = 0
    stalled_s: float = 0.0
    failure: str | None = None
    drafted_tokens: int | None = None
    accepted_tokens: int | None = None


Sink = Callable[[Piece], None]


def deliver(pieces: Sequence[tuple[Sink, Piece]], loop: asyncio.AbstractEventLoop) -> None:
    """Hand pieces over on the event loop, all of them in one turn; called from an engine's thread."""
    if pieces and not loop.is_closed():
        loop.call_soon_threadsafe(_hand_over, pieces)


def _hand_over(pieces: Sequence[tuple[Sink, Piece]]) -> None:
    for sink, piece in pieces:
        sink(piece)


def last_line(problem: BaseException) -> str:
    """Return the last line of a library's exception without the place in its C++ source, or its kind."""
    lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
    return SOURCE_PLACE.sub("", lines[-1])[:300] if lines else type(problem).__name__


class PromptRefused(Exception):
    """The prompt cannot be rendered or encoded; the message is fit for the client."""


class TextEngine(Protocol):
    """A loaded model that batches requests continuously; `encode` may be called from any thread."""

    def encode(self, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
        """Apply the chat template once and tokenise.

        Raises:
            PromptRefused: the template rejects these messages.
        """
        ...

    def detokeniser(self) -> Detokeniser:
        """Return a fresh detokeniser for one completion."""
        ...

    def submit(self, prompt: Sequence[int], sampling: Sampling, index: int, sink: Sink) -> int:
        """Queue one completion and return its ticket; `sink` is called on the event loop."""
        ...

    def cancel(self, ticket: int) -> None:
        """Stop generating; nothing more reaches the sink. Unknown and finished tickets are ignored."""
        ...

    def gauges(self) -> Gauges:
        """Return the state after the last step."""
        ...
