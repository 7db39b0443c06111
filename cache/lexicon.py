"""Everyday words, read from the vocabulary that comes with the encoder, where they stand in order of frequency."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_COMMON = 5_000
_SMOOTHING = 50


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Lower-case words: all that are known, the common ones among them, and the place of each by frequency."""

    known: frozenset[str]
    common: frozenset[str]
    places: Mapping[str, int] = field(default_factory=dict, repr=False)

    def weight(self, word: str) -> float:
        """Return how rare `word` is, from about 0.4 (the most frequent) to 1 (unknown)."""
        place = self.places.get(word)
        return 1.0 if place is None else math.log(place + _SMOOTHING) / math.log(len(self.places) + _SMOOTHING)


NO_WORDS = Lexicon(frozenset(), frozenset())


def read_lexicon(vocabulary: Path) -> Lexicon:
    """Read a word-piece vocabulary, one piece a line; some 20,000 words of 230 KB.

    Raises:
        OSError: the file cannot be read.
    """
    lines = vocabulary.read_text(encoding="utf-8").splitlines()
    words = [line for line in lines if line.isalpha()]
    return Lexicon(
        known=frozenset(words),
        common=frozenset(line for line in lines[:_COMMON] if line.isalpha()),
        places={word: place for place, word in enumerate(words)},
    )
