"""Turns generated token ids into text piece by piece, never splitting a character and never showing a stop string."""

import codecs
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

Decode = Callable[[Sequence[int]], str]
REPLACEMENT = "�"
SAMPLE = "Hello , world . It 's  1,234 × 5 é 你好 🎉\n\tdone"


class Detokeniser(Protocol):
    """Holds the undecided tail of one completion."""

    def push(self, token_ids: Sequence[int]) -> str:
        """Take new tokens and return the text that is now certain."""
        ...

    def flush(self) -> str:
        """Return what is left at the end, with U+FFFD where bytes are missing."""
        ...


class ByteDetokeniser:
    """Joins the bytes of each token: exact and cheap where a token's bytes do not depend on its neighbours."""

    def __init__(self, token_bytes: Mapping[int, bytes]) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_ids: Sequence[int]) -> str:
        """Decode whole characters and keep an unfinished one back."""
        return self._utf8.decode(b"".join(self._token_bytes.get(token, b"") for token in token_ids))

    def flush(self) -> str:
        """Give up on an unfinished character."""
        return self._utf8.decode(b"", final=True)


class WindowDetokeniser:
    """Decodes a sliding window twice and emits the difference: right for every tokenizer, at two decodes a token."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._ids: list[int] = []
        self._window_start = 0
        self._emitted_until = 0

    def push(self, token_ids: Sequence[int]) -> str:
        """Emit the new text unless it ends inside a character."""
        self._ids.extend(token_ids)
        text = self._pending()
        if text.endswith(REPLACEMENT):
            return ""
        self._window_start, self._emitted_until = self._emitted_until, len(self._ids)
        return text

    def flush(self) -> str:
        """Emit whatever is pending."""
        text = self._pending()
        self._emitted_until = len(self._ids)
        return text

    def _pending(self) -> str:
        known = self._decode(self._ids[self._window_start : self._emitted_until])
        return self._decode(self._ids[self._window_start :])[len(known) :]


def byte_table(
    vocabulary: Mapping[bytes, int],
    decode: Decode,
    decode_each: Callable[[Sequence[int]], list[str]],
    sample: list[int],
) -> dict[int, bytes] | None:
    """Return the bytes of every visible token, or None when joining them does not reproduce the tokenizer.

    Args:
        vocabulary: token bytes to id, special tokens included.
        decode: ids to text, special tokens skipped.
        decode_each: the text of each id on its own.
        sample: the ids of `SAMPLE`, in which neighbours matter for tokenizers that clean up spaces.
    """
    ids = sorted(vocabulary.values())
    by_id = {token: raw for raw, token in vocabulary.items()}
    texts = dict(zip(ids, decode_each(ids), strict=True))
    table = {token: raw for token, raw in by_id.items() if texts[token] or not raw}
    if any(raw.decode("utf-8", "replace") != texts[token] for token, raw in table.items()):
        return None
    joined = b"".join(table.get(token, b"") for token in sample).decode("utf-8", "replace")
    return table if joined == decode(sample) else None


class StopStrings:
    """Cuts text before the first stop string, holding back any tail that could still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Return the text that may be shown; sets `found` when a stop string is complete."""
        if not self._stops:
            return text
        self._held += text
        cuts = [cut for cut in (self._held.find(stop) for stop in self._stops) if cut >= 0]
        if cuts:
            self.found = True
            shown, self._held = self._held[: min(cuts)], ""
            return shown
        keep = max(_overlap(self._held, stop) for stop in self._stops)
        shown, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        return shown

    def flush(self) -> str:
        """Return what was held back in vain."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that is a proper beginning of `stop`."""
    return next((size for size in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:size])), 0)
