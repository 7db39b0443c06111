"""One chat completion on the wire: the text of each choice as it grows, its SSE frames, its JSON body, its usage."""

import time
from collections.abc import Sequence
from secrets import token_hex

import msgspec

from backends.engines.detokenise import Detokeniser, StopStrings
from backends.engines.generation import FinishReason, Piece

Usage = dict[str, int]


class Choice:
    """One of a request's completions."""

    def __init__(self, index: int, detokeniser: Detokeniser, stops: Sequence[str]) -> None:
        self.index = index
        self.token_count = 0
        self.finish_reason: FinishReason | None = None
        self.ended_by_engine = False
        self.text = ""
        self._detokeniser = detokeniser
        self._stops = StopStrings(stops)

    def take(self, piece: Piece) -> str:
        """Return the text that `piece` makes certain; a stop string ends the choice before the engine does."""
        if self.finish_reason is not None:
            self.ended_by_engine = self.ended_by_engine or piece.finish_reason is not None
            return ""
        self.token_count += len(piece.token_ids)
        shown = self._stops.push(self._detokeniser.push(piece.token_ids))
        if piece.finish_reason is not None:
            self.ended_by_engine = True
            if not self._stops.found:
                shown += self._stops.push(self._detokeniser.flush())
            shown += self._stops.flush()
        self.finish_reason = "stop" if self._stops.found else piece.finish_reason
        self.text += shown
        return shown


class ChunkWriter:
    """Writes the frames of one stream; everything but the delta is encoded once."""

    def __init__(self, model: str, *, with_usage: bool) -> None:
        head = {
            "id": _new_id(),
            "object": "chat.completion.chunk",
            "created": int(time.time()),
            "model": model,
        }
        self._head = b"data: " + msgspec.json.encode(head)[:-1]
        self._tail = b',"usage":null}\n\n' if with_usage else b"}\n\n"
        self._with_usage = with_usage
        self._begun: set[int] = set()
        self._ended: set[int] = set()

    def frames(self, choices: Sequence[Choice], texts: Sequence[str]) -> bytes:
        """Return the frames for new text and for choices that just ended; empty when there is nothing to tell."""
        return b"".join(
            self._frames(choice, text)
            for choice, text in zip(choices, texts, strict=True)
            if choice.index not in self._ended
        )

    def last(self, usage: Usage) -> bytes:
        """Return the usage chunk, when it was asked for, and the end marker."""
        end = b"data: [DONE]\n\n"
        if not self._with_usage:
            return end
        return self._head + b',"choices":[],"usage":' + msgspec.json.encode(usage) + b"}\n\n" + end

    def _frames(self, choice: Choice, text: str) -> bytes:
        frames = b""
        if choice.index not in self._begun and (text or choice.finish_reason):
            self._begun.add(choice.index)
            frames += self._frame(choice.index, {"role": "assistant", "content": text}, None)
        elif text:
            frames += self._frame(choice.index, {"content": text}, None)
        if choice.finish_reason is not None:
            self._ended.add(choice.index)
            frames += self._frame(choice.index, {}, choice.finish_reason)
        return frames

    def _frame(self, index: int, delta: dict[str, str], finish_reason: FinishReason | None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head + b',"choices":[' + msgspec.json.encode(choice) + b"]" + self._tail


def usage_of(prompt_tokens: int, choices: Sequence[Choice]) -> Usage:
    """Count tokens as OpenAI does: the prompt once, the completions of all choices together."""
    completion_tokens = sum(choice.token_count for choice in choices)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def completion_body(model: str, choices: Sequence[Choice], usage: Usage) -> bytes:
    """Return the JSON of a whole answer."""
    return msgspec.json.encode(
        {
            "id": _new_id(),
            "object": "chat.completion",
            "created": int(time.time()),
            "model": model,
            "choices": [
                {
                    "index": choice.index,
                    "message": {"role": "assistant", "content": choice.text, "refusal": None},
                    "logprobs": None,
                    "finish_reason": choice.finish_reason,
                }
                for choice in choices
            ],
            "usage": usage,
        }
    )


def _new_id() -> str:
    return f"chatcmpl-{token_hex(12)}"
