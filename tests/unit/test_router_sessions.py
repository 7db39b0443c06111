"""Conversations: which one a request continues, when its tier is kept, and what a turn leaves."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from core.chat import ChatRequest, Demands, parse_chat_request
from core.clock import ManualClock
from core.identity import Caller
from core.rules import SessionRules, TenantPolicy
from router.sessions import Session, SessionBook, SessionState, after, holding, may_go_down
from tests.planning import declared, policy

RULES = SessionRules()
LARGE = SessionState("large", "l", 400, turns=2)
ACME = Caller("acme", "k1")


def talk(*turns: str, session: str | None = None, **fields: Any) -> ChatRequest:
    """Build a conversation: user and assistant in turn."""
    messages = [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(turns)]
    body = {"model": "auto", "messages": messages, **fields}
    return parse_chat_request(msgspec.json.encode(body), "r", Demands(session=session))


def rules(**changes: Any) -> TenantPolicy:
    tenant = policy().tenant_policy
    return replace(tenant, routing=replace(tenant.routing, sessions=replace(RULES, **changes)))


class Talks:
    """A book with a clock, and requests that are opened in it as the pipeline does."""

    def __init__(self, most: int = 10) -> None:
        self.clock = ManualClock()
        self.book = SessionBook(b"p" * 32, self.clock, most)

    def state(self, request: ChatRequest, caller: Caller = ACME, **changes: Any) -> SessionState | None:
        session = self.book.open(caller, request, declared(request), rules(**changes))
        return None if session is None else session.state

    def note(self, request: ChatRequest, caller: Caller = ACME, state: SessionState = LARGE) -> None:
        session = self.book.open(caller, request, declared(request), rules())
        assert session is not None
        self.book.note(caller.tenant, Session(session.id, state))


def test_a_follow_up_finds_the_session_of_its_beginning() -> None:
    talks = Talks()
    talks.note(talk("Prove it."))
    assert talks.state(talk("Prove it.", "Here it is.", "why?")) == LARGE
    assert talks.state(talk("Prove that.", "Here it is.", "why?")) is None


def test_the_same_first_words_again_are_a_new_conversation() -> None:
    talks = Talks()
    talks.note(talk("hi"))
    assert talks.state(talk("hi")) is None


@pytest.mark.parametrize(
    "named", [{"session": "s1"}, {"metadata": {"session_id": "s1"}}, {"metadata": {"conversation_id": "s1"}}]
)
def test_a_named_session_needs_no_beginning_in_common(named: dict[str, Any]) -> None:
    talks = Talks()
    talks.note(talk("Prove it.", **named))
    assert talks.state(talk("and now?", **named)) == LARGE
    assert talks.state(talk("and now?", session="s2")) is None


@pytest.mark.parametrize("other", [Caller("globex", "k1"), Caller("acme", "k1", user="eve")])
def test_sessions_are_apart_by_tenant_and_end_user_whatever_their_name(other: Caller) -> None:
    talks = Talks()
    talks.note(talk("one", session="s1"))
    assert talks.state(talk("two", session="s1"), other) is None


def test_another_key_shares_a_named_session_and_no_found_one() -> None:
    talks, other = Talks(), Caller("acme", "k2")
    talks.note(talk("one", session="s1"))
    talks.note(talk("one"))
    assert talks.state(talk("two", session="s1"), other) == LARGE
    assert talks.state(talk("one", "yes", "two"), other) is None


def test_a_session_is_forgotten_after_its_time_and_when_there_are_too_many() -> None:
    talks = Talks(most=2)
    talks.note(talk("one", session="a"))
    talks.clock.advance(1_801)
    assert talks.state(talk("two", session="a")) is None
    assert talks.state(talk("two", session="a"), ttl_s=10_000) == LARGE
    talks.note(talk("one", session="b"))
    talks.note(talk("one", session="c"))
    assert talks.state(talk("two", session="a"), ttl_s=10_000) is None


def test_a_policy_may_want_no_sessions_or_have_lost_the_tier() -> None:
    talks = Talks()
    talks.note(talk("one", session="a"))
    request = talk("two", session="a")
    assert talks.book.open(ACME, request, declared(request), rules(enabled=False)) is None
    smaller = replace(rules(), tiers=("small",))
    assert talks.book.open(ACME, request, declared(request), smaller) == Session(
        talks.book._id(ACME, "a", request), None
    )


def test_metadata_of_another_shape_names_no_session() -> None:
    assert Talks().state(talk("x", metadata={"session_id": 5})) is None


@pytest.mark.parametrize(
    ("messages", "hold"),
    [
        (talk("Prove it.", "So.", "why?"), "follow_up"),
        (talk("Prove it.", "So.", "Now the same for all even numbers up to a hundred, with every step shown."), None),
        (talk("why?"), None),
        (talk("Prove it.", "So."), None),
    ],
)
def test_a_short_follow_up_keeps_the_tier(messages: ChatRequest, hold: str | None) -> None:
    assert holding(LARGE, declared(messages), RULES) == hold
    assert holding(None, declared(messages), RULES) is None


def test_an_agent_loop_keeps_the_tier() -> None:
    messages = [{"role": "user", "content": "look it up"}, {"role": "tool", "content": "42", "tool_call_id": "c"}]
    request = parse_chat_request(msgspec.json.encode({"model": "auto", "messages": messages}), "r")
    assert holding(LARGE, declared(request), RULES) == "tool_loop"


def test_easy_turns_add_up_and_a_hard_one_begins_anew() -> None:
    facts, state = declared(talk("x")), LARGE
    for easy_turns in (1, 2):
        assert not may_go_down(state, RULES)
        state = after(state, facts, "large", "l", was_easy=True)
        assert state.easy_turns == easy_turns
    assert may_go_down(state, RULES)
    assert after(state, facts, "large", "l", was_easy=None).easy_turns == 2
    assert after(state, facts, "large", "l", was_easy=False).easy_turns == 0
    assert after(state, facts, "small", "s", was_easy=True).easy_turns == 0
    assert after(state, facts, "small", "s", was_easy=True).turns == LARGE.turns + 3
