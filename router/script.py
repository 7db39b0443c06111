"""Which script a text is written in, judged by a bounded sample of its characters."""

import re

from core.facts import Script

SAMPLE_CHARS = 1_000
MAX_NON_LATIN_RATIO = 0.3
"""Up to this share of letters outside the Latin script a text counts as Latin: names and quotations do not decide."""

# Latin letters end at U+024F; the later ranges are its extensions (Unicode 16, Blocks.txt).
_NON_LATIN = re.compile(r"[^\W\d_\u0000-\u024f\u1e00-\u1eff\u2c60-\u2c7f\ua720-\ua7ff\uab30-\uab6f\uff21-\uff5a]+")
_LETTERS = re.compile(r"[^\W\d_]+")
# Blocks of Unicode 16 that hold the letters of each script in present use.
_SCRIPTS: tuple[tuple[Script, re.Pattern[str]], ...] = (
    ("cyrillic", re.compile(r"[\u0400-\u052f\u1c80-\u1c8f\u2de0-\u2dff\ua640-\ua69f]")),
    ("greek", re.compile(r"[\u0370-\u03ff\u1f00-\u1fff]")),
    ("arabic", re.compile(r"[\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff\ufb50-\ufdff\ufe70-\ufeff]")),
    ("hebrew", re.compile(r"[\u0590-\u05ff\ufb1d-\ufb4f]")),
    ("devanagari", re.compile(r"[\u0900-\u097f\ua8e0-\ua8ff]")),
    ("kana", re.compile(r"[\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f]")),
    ("hangul", re.compile(r"[\u1100-\u11ff\u3130-\u318f\ua960-\ua97f\uac00-\ud7ff]")),
    ("thai", re.compile(r"[\u0e00-\u0e7f]")),
    ("han", re.compile(r"[\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")),
)
_KANA_WINS_FROM = 0.1
"""Japanese mixes Han with kana; from this share of kana on the text is Japanese, not Chinese."""


def non_latin_ratio(text: str) -> float:
    """Return the share of letters outside the Latin script in the head and the tail, in [0, 1]; 0 without letters."""
    sample = _sample(text)
    if sample.isascii():
        return 0.0
    letters = sum(map(len, _LETTERS.findall(sample)))
    return sum(map(len, _NON_LATIN.findall(sample))) / letters if letters else 0.0


def script_of(text: str) -> tuple[Script, float]:
    """Return the script that decides for `text`, and the share of its letters outside the Latin one."""
    if text.isascii():
        return "latin", 0.0
    ratio = non_latin_ratio(text)
    if ratio <= MAX_NON_LATIN_RATIO:
        return "latin", ratio
    foreign = "".join(_NON_LATIN.findall(_sample(text)))
    counts = {script: len(pattern.findall(foreign)) for script, pattern in _SCRIPTS}
    if counts["kana"] >= _KANA_WINS_FROM * len(foreign):
        return "kana", ratio
    script = max(counts, key=counts.__getitem__)
    return (script if counts[script] > 0 else "other"), ratio


def _sample(text: str) -> str:
    return text if len(text) <= 2 * SAMPLE_CHARS else text[:SAMPLE_CHARS] + text[-SAMPLE_CHARS:]
