"""Whatever the upstream does, the client gets the right answer or a clear error, and the books are right."""

import asyncio

import pytest

from gateway.faults.cases import CASES, Case
from gateway.faults.client import Sighting
from gateway.faults.verdicts import Released, Verdict, judge
from gateway.faults.wall import run_own


@pytest.fixture(scope="module")
def verdicts(request: pytest.FixtureRequest) -> dict[str, Verdict]:
    """Run, four at a time, the cases that this session's tests ask about."""
    wanted = {item.name for item in request.session.items}
    cases = [case for case in CASES if f"test_client_upstream_and_books_are_right[{case.id}]" in wanted]
    return {verdict.case.id: verdict for verdict in asyncio.run(run_own(cases))}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_client_upstream_and_books_are_right(case: Case, verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts[case.id]
    assert verdict.client == []
    assert verdict.upstream == []
    assert verdict.inside == []


def test_no_two_cases_are_the_same() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    assert len({(case.script, case.before, case.stream, case.target, case.leaves_after) for case in CASES}) == len(
        CASES
    )


FAILS = next(case for case in CASES if case.id == "closed in the middle, stream")
HALF = Sighting(status=200, text="answer to:")
TOLD = Sighting(status=200, text="answer to:", error="the answer was cut")
GONE = Released(("close",), 2)


@pytest.mark.parametrize(
    ("seen", "released", "finding"),
    [
        (HALF, GONE, "got silent answer without an error"),
        (Sighting(status=200, text="answer to: you", done=1), GONE, "got whole answer without an error"),
        (Sighting(status=200, text="invented", error="cut"), GONE, "was given text that the upstream did not say"),
        (Sighting(is_hung=True), GONE, "waited without end"),
        (TOLD, Released(("open",), 2), "is still generating"),
        (TOLD, Released(("close", "close"), 2), "was asked 2 times"),
    ],
)
def test_a_gateway_that_does_wrong_is_found_out(seen: Sighting, released: Released, finding: str) -> None:
    verdict = judge(FAILS, "answer to: you", seen, released, None)
    assert [*verdict.client, *verdict.upstream] == [finding]
    assert verdict.inside is None


def test_a_gateway_that_tells_of_the_break_is_right() -> None:
    assert judge(FAILS, "answer to: you", TOLD, GONE, None).is_good
