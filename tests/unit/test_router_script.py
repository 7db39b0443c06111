"""The script that decides for a text, one sample a script."""

import pytest

from core.facts import Script
from router.script import script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Which city is it?", "latin"),
        ("", "latin"),
        ("12 + 30 = ?", "latin"),
        ("The Greek word λόγος means many things in English.", "latin"),
        ("Какой город?", "cyrillic"),
        ("ποια πόλη;", "greek"),
        ("ما هي العاصمة", "arabic"),
        ("מהי הבירה", "hebrew"),
        ("राजधानी क्या है", "devanagari"),
        ("北京是首都", "han"),
        ("東京は日本の首都です", "kana"),
        ("서울은 어디에 있나요", "hangul"),
        ("กรุงเทพ", "thai"),
        ("ሰላም ለሁሉም", "other"),
    ],
)
def test_each_script_is_told_apart(text: str, script: Script) -> None:
    assert script_of(text)[0] == script
