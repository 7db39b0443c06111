"""What the pages refer to is there: other pages, their headings, pictures."""

import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted(
    page.relative_to(REPOSITORY)
    for folder in (".", "docs", "docs/decisions", "observability", "gateway/faults/upstream", "backends/bundled")
    for page in (REPOSITORY / folder).glob("*.md")
)
LINK = re.compile(r"\]\((?!\w+:)([^)#\s]*)(?:#([^)\s]*))?\)")
HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)


def anchors(page: Path) -> set[str]:
    return {re.sub(r"[^\w\- ]", "", one.lower()).strip().replace(" ", "-") for one in HEADING.findall(page.read_text())}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    here = REPOSITORY / page
    for path, anchor in LINK.findall(here.read_text()):
        there = (here.parent / path).resolve() if path else here
        assert there.exists(), path
        assert not anchor or anchor in anchors(there), f"{path}#{anchor}"


def test_every_page_for_users_is_linked_from_the_readme() -> None:
    linked = {path for path, _ in LINK.findall((REPOSITORY / "README.md").read_text())}
    assert {f"docs/{page.name}" for page in (REPOSITORY / "docs").glob("*.md")} <= linked
