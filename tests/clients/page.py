"""The generated parts of docs/clients.md: what each client was seen to do, and what OpenAI's schemas are forgiven.

`python -m tests.clients.page` writes them anew after `make clients`.
"""

import json
import re
from pathlib import Path

from tests.openai_tolerances import NULLS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "clients.md"
RESULTS = ROOT / "benchmarks" / "results"
CAPABILITIES = ("text", "stream", "tools", "errors", "broken stream", "cancel")
MATRIX = re.compile(r"(?<=<!-- matrix: python -m tests\.clients\.page -->\n\n).*?\n(?=\n)", re.DOTALL)
TOLERATED = re.compile(r"(?<=\| field \| tolerated \|\n\|---\|---\|\n).*", re.DOTALL)


def matrix() -> str:
    """Return the table of clients from the reports that `make clients` keeps."""
    seen: dict[str, dict[str, str]] = {}
    for name in ("python", "node", "frameworks"):
        for check, result in json.loads((RESULTS / f"clients_{name}.json").read_text()).items():
            client, _, capability = check.partition(": ")
            if capability:
                seen.setdefault(client, {})[capability] = "yes" if result == "ok" else "no"
    lines = [f"| client | {' | '.join(CAPABILITIES)} |", "|---" * (len(CAPABILITIES) + 1) + "|"]
    lines += [f"| {client} | {' | '.join(row[one] for one in CAPABILITIES)} |" for client, row in seen.items()]
    return "\n".join(lines) + "\n"


def tolerated() -> str:
    """Return the rows of what is tolerated."""
    return "".join(f"| `{field}` | {when} |\n" for field, when in NULLS.items())


def page() -> str:
    """Return docs/clients.md as it should be."""
    text = MATRIX.sub(lambda _: matrix(), PAGE.read_text())
    return TOLERATED.sub(lambda _: tolerated(), text)


if __name__ == "__main__":
    PAGE.write_text(page())
