"""Everyday words, read from the vocabulary that comes with the encoder, where they stand in order of frequency."""

from dataclasses import dataclass
from pathlib import Path

_COMMON = 5_000


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Lower-case words: all that are known, and the common ones among them."""

    known: frozenset[str]
    common: frozenset[str]


NO_WORDS = Lexicon(frozenset(), frozenset())


def read_lexicon(vocabulary: Path) -> Lexicon:
    """Read a word-piece vocabulary, one piece a line; some 20,000 words of 230 KB.

    Raises:
        OSError: the file cannot be read.
    """
    lines = vocabulary.read_text(encoding="utf-8").splitlines()
    return Lexicon(
        known=frozenset(line for line in lines if line.isalpha()),
        common=frozenset(line for line in lines[:_COMMON] if line.isalpha()),
    )
