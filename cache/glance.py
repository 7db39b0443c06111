"""A cheap look at a text, which spares most texts the patterns: its letters folded, and its words.

A pattern that ignores case takes some letters beyond ASCII for ASCII ones (`ſ` is an `s`); folding does the same. So a
text whose folded form lacks what a pattern cannot do without has no match, in whatever script it is written.
"""

from functools import lru_cache

import msgspec

_LATELY = 64
_LIKE_ASCII = str.maketrans({"ſ": "s", "\u212a": "k", "İ": "i", "ı": "i"})
_LETTERS_ONLY = bytes(byte if 97 <= byte <= 122 else 32 for byte in range(256))
_NO_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte <= 57)


class Glance(msgspec.Struct, frozen=True, gc=False):
    """A text with its letters folded, and the set of its runs of `a` to `z`, in ASCII bytes."""

    folded: str
    words: frozenset[bytes]


@lru_cache(maxsize=_LATELY)
def glance(text: str) -> Glance:
    """Return what a cheap look at a text tells."""
    folded = fold(text)
    letters = folded.encode("utf-8", "surrogatepass").translate(_LETTERS_ONLY)
    return Glance(folded, frozenset(letters.split()))


def fold(text: str) -> str:
    """Return `text` in lower case, with ASCII letters for all that a pattern which ignores case takes for them."""
    return text.lower() if text.isascii() else text.translate(_LIKE_ASCII).lower()


def ascii_digits(text: str) -> int:
    """Count the digits of a text in ASCII."""
    return len(text.encode("ascii").translate(None, _NO_DIGITS))


def as_words(*lists: str) -> frozenset[bytes]:
    """Return the words of some lists as `Glance.words` has them."""
    return frozenset(" ".join(lists).encode("ascii").split())


def has_any(signs: tuple[str, ...], text: str) -> bool:
    """Tell whether a text holds one of some short texts."""
    for sign in signs:  # noqa: SIM110 - a generator costs as much as ten of these looks
        if sign in text:
            return True
    return False
