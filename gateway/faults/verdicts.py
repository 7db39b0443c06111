"""Judges what was seen of one case: by the client and the upstream for any gateway, by its books for Headgate."""

from dataclasses import dataclass, field

from gateway.faults.cases import Billed, Case, Sees
from gateway.faults.client import Sighting

SEEN_AS_ERROR = frozenset({"refused", "told", "broken"})


@dataclass(frozen=True, slots=True)
class Released:
    """How the upstream fared: the states of its requests, and how many pieces it had sent when the last one ended."""

    states: tuple[str, ...]
    chunks_sent: int


@dataclass(frozen=True, slots=True)
class Books:
    """What Headgate wrote down; money in nano-USD.

    `charged_nano_usd` is what the budget lost and `held_nano_usd` what it still holds.
    """

    status: int
    cost_nano_usd: int
    charged_nano_usd: int
    held_nano_usd: int
    usage_source: str
    other_model: str | None
    faults: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was wrong in one case, per side; `inside` is None for other gateways."""

    case: Case
    seen: Sighting
    released: Released
    books: Books | None
    client: list[str] = field(default_factory=list)
    upstream: list[str] = field(default_factory=list)
    inside: list[str] | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong."""
        return not (self.client or self.upstream or self.inside)


def judge(case: Case, expected_text: str, seen: Sighting, released: Released, books: Books | None) -> Verdict:
    """Return what is wrong on each side."""
    return Verdict(
        case=case,
        seen=seen,
        released=released,
        books=books,
        client=_client(case, expected_text, seen),
        upstream=_upstream(case, released),
        inside=None if books is None else _inside(case, seen, books),
    )


def _client(case: Case, expected_text: str, seen: Sighting) -> list[str]:
    wrong = [f"was given the upstream's {name}" for name in seen.leaked]
    if case.sees is Sees.LEAVES:
        return wrong if seen.kind == "left" else [*wrong, f"could not leave ({seen.kind})"]
    if seen.kind in SEEN_AS_ERROR:
        if not expected_text.startswith(seen.text):
            wrong.append("was given text that the upstream did not say")
        return wrong if case.sees is not Sees.WHOLE else [*wrong, f"got an error: {seen.error or seen.problem}"[:160]]
    if seen.kind == "hung":
        return [*wrong, "waited without end"]
    if case.sees is Sees.ERROR:
        return [*wrong, f"got {seen.kind} answer without an error"]
    return wrong + _not_whole(expected_text, seen)


def _not_whole(expected_text: str, seen: Sighting) -> list[str]:
    if seen.kind == "silent":
        return ["got half an answer without an error"]
    wrong = [] if seen.text == expected_text else ["got another text than the upstream said"]
    return wrong if seen.done == 1 else [*wrong, f"got {seen.done} times [DONE]"]


def _upstream(case: Case, released: Released) -> list[str]:
    wrong = []
    if "open" in released.states:
        wrong.append("is still generating")
    if len(released.states) > case.requests:
        wrong.append(f"was asked {len(released.states)} times")
    return wrong


def _inside(case: Case, seen: Sighting, books: Books) -> list[str]:
    wrong = []
    if books.status != (case.status if case.status != 200 or seen.kind == "whole" else books.status):
        wrong.append(f"logged {books.status} instead of {case.status}")
    if case.sees is not Sees.LEAVES and seen.status != case.status:
        wrong.append(f"answered {seen.status} instead of {case.status}")
    if case.status == 200 and seen.kind not in ("whole", "told"):
        wrong.append(f"the client was not told by an error event ({seen.kind})")
    if books.usage_source != case.billed.value:
        wrong.append(f"billed what is {books.usage_source} instead of {case.billed.value}")
    if (books.cost_nano_usd > 0) != (case.billed is not Billed.NOTHING):
        wrong.append(f"the request cost {books.cost_nano_usd} nano-USD")
    if books.charged_nano_usd != books.cost_nano_usd:
        wrong.append(f"the ledger charged {books.charged_nano_usd} nano-USD instead of {books.cost_nano_usd}")
    if books.held_nano_usd:
        wrong.append(f"{books.held_nano_usd} nano-USD are still held")
    if books.faults != case.faults:
        wrong.append(f"the breaker counted {books.faults} instead of {case.faults}")
    if (books.other_model is not None) != case.is_other_model:
        wrong.append(f"noted {books.other_model!r} as the model that answered")
    return wrong
