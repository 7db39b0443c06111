"""Which script a text is written in, judged by a bounded sample of its characters."""

import re

SAMPLE_CHARS = 1_000

# Latin letters end at U+024F; the later ranges are its extensions (Unicode 16, Blocks.txt).
_NON_LATIN = re.compile(r"[^\W\d_\u0000-\u024f\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f\uff21-\uff5a]+")
_LETTERS = re.compile(r"[^\W\d_]+")


def non_latin_ratio(text: str) -> float:
    """Return the share of letters outside the Latin script in the head and the tail, in [0, 1]; 0 without letters."""
    sample = text if len(text) <= 2 * SAMPLE_CHARS else text[:SAMPLE_CHARS] + text[-SAMPLE_CHARS:]
    if sample.isascii():
        return 0.0
    letters = sum(map(len, _LETTERS.findall(sample)))
    return sum(map(len, _NON_LATIN.findall(sample))) / letters if letters else 0.0
