"""docs/clients.md says what was measured and what is tolerated."""

from tests.clients.page import CAPABILITIES, PAGE, matrix, page
from tests.openai_tolerances import NULLS


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == page(), "run: python -m tests.clients.page"


def test_every_client_was_seen_to_do_everything() -> None:
    rows = [line.strip("| ").split(" | ") for line in matrix().splitlines()[2:]]
    assert len(rows) == 12
    assert {cell for row in rows for cell in row[1:]} == {"yes"}
    assert {len(row) for row in rows} == {1 + len(CAPABILITIES)}


def test_every_tolerance_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert all(f"| `{field}` | " in text for field in NULLS)
