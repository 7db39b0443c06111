"""What one wire has to say: how a body becomes a request, an answer becomes its own, and an error is told."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from core.chat import ChatRequest, Demands
from core.errors import HeadgateError
from gateway.answer import Answer
from gateway.trace_draft import TraceDraft
from gateway.wire.rendering import error_body, error_event


class Voice(Protocol):
    """How errors, and signs of life in a long wait, are said on one wire."""

    @property
    def heartbeat(self) -> bytes:
        """Return the frame that keeps an idle stream open."""
        ...

    def error_body(self, error: HeadgateError, request_id: str) -> bytes:
        """Return the body of an error answer."""
        ...

    def error_event(self, error: HeadgateError) -> bytes:
        """Return the frames that end a stream which has begun."""
        ...


class OpenAiVoice:
    """The OpenAI error object; heartbeats are comments, which every parser of event streams skips."""

    heartbeat = b": keep-alive\n\n"

    def error_body(self, error: HeadgateError, request_id: str) -> bytes:
        """Return the error object."""
        return error_body(error)

    def error_event(self, error: HeadgateError) -> bytes:
        """Return the error object as one data frame."""
        return error_event(error)


class Translator(Protocol):
    """Turns one chat answer into its client's wire; streams are fed frame by frame, in order."""

    def whole(self, body: bytes) -> bytes:
        """Translate a whole chat completion."""
        ...

    def frame(self, frame: bytes) -> bytes:
        """Translate one frame of a chat stream; returns frames, or nothing."""
        ...


OPENAI = OpenAiVoice()


@dataclass(frozen=True, slots=True)
class Spoken:
    """A request as the pipeline takes it, and who turns its answer back; without a translator it goes as it is."""

    request: ChatRequest
    translator: Translator | None = None
    voice: Voice = OPENAI


@dataclass(frozen=True, slots=True)
class Dialect:
    """One route: its path, how its body is read, and how errors are told before that."""

    route: str
    read: Callable[[bytes, str, Demands], Spoken]
    voice: Voice = OPENAI


def spoken_answer(answer: Answer, translator: Translator | None, draft: TraceDraft) -> Answer:
    """Return `answer` as its client's wire has it; what cannot be translated is the request's error in the trace."""
    if translator is None:
        return answer
    return replace(answer, chunks=_translated(answer, translator, draft), flow_to=None)


async def _translated(answer: Answer, translator: Translator, draft: TraceDraft) -> AsyncIterator[bytes]:
    try:
        if not answer.stream:
            yield translator.whole(b"".join([chunk async for chunk in answer.chunks]))
            return
        async for frame in answer.chunks:
            if said := translator.frame(frame):
                yield said
    except HeadgateError as error:
        draft.error = error
        raise
