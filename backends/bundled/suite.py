"""Write the suite of the bundled families, `suite.jsonl`: questions with held-out contents, which no training has seen.

`python -m backends.bundled.suite` writes it anew; a test holds the file against it.
"""

import json
import sys
from pathlib import Path
from typing import Final

from backends.bundled.tasks import families, generate

SUITE: Final = Path(__file__).with_name("suite.jsonl")
SEED: Final = 20_263
OF_EACH: Final = 20


def suite_text() -> str:
    """Return the file's content: 20 questions of every family, easy families first."""
    questions = [question for family in families() for question in generate(family.name, SEED, OF_EACH, "test")]
    lines = [
        json.dumps({"question": one.prompt, "answer": one.answer, "family": one.family}, ensure_ascii=False)
        for one in questions
    ]
    return "\n".join((*lines, ""))


if __name__ == "__main__":
    SUITE.write_text(suite_text(), encoding="utf-8")
    print(SUITE.name, file=sys.stderr)
