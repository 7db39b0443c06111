"""Which conversation a request continues, what was decided there before, and when that binds the next turn.

A session has an id from the header `x-headgate-session`, from the body's metadata (`session_id`, `conversation_id`), or
else from a keyed hash of the conversation's beginning: everything up to the first user turn. It belongs to one tenant
and end user, a found one to one key as well. Sessions live in memory, each replica for itself, at most so many per
tenant and each for so long after its last turn; a replica that does not know a session decides as for a first turn.

What a session means for the next turn is pure (`holding`, `after`):
- an agent loop (the request ends in tool results) stays on its tier;
- a short follow-up inherits the tier: its own text says little about how hard the matter is;
- any other turn may go up freely, and down only after several easy turns in a row. What leaving the prefix cache costs
  is weighed by the planner.
"""

import hashlib
from collections import OrderedDict
from typing import Literal

import msgspec

from core.chat import ChatRequest
from core.clock import Clock
from core.facts import RequestFacts
from core.identity import Caller
from core.rules import SessionRules, TenantPolicy

MOST_SESSIONS = 10_000
HASHED_BYTES = 16 * 1024
"""Of a long beginning, so much enters the hash, and its length."""
Hold = Literal["tool_loop", "follow_up", "easy_turns"]


class SessionState(msgspec.Struct, frozen=True, gc=False):
    """What a session's last turn left.

    Attributes:
        tier: who answered, and `deployment` likewise.
        input_tokens: of that turn's prompt, estimated: what a prefix cache can hold of it.
        easy_turns: turns in a row for which a cheaper tier would have been chosen.
    """

    tier: str
    deployment: str
    input_tokens: int
    turns: int = 1
    easy_turns: int = 0


class Session(msgspec.Struct, frozen=True, gc=False):
    """A request's session: its id, which tells nothing of the conversation, and None as state on a first turn."""

    id: str
    state: SessionState | None


def state_of(session: Session | None) -> SessionState | None:
    """Return what the last turn left, None on a first turn and without sessions."""
    return None if session is None else session.state


def holding(state: SessionState | None, facts: RequestFacts, rules: SessionRules) -> Hold | None:
    """Return why a request keeps its session's tier without being judged, or None when it is judged."""
    if state is None:
        return None
    if facts.ends_in == "tool":
        return "tool_loop"
    if facts.ends_in == "user" and facts.turns > 0 and 0 < facts.last_user_chars <= rules.follow_up_chars:
        return "follow_up"
    return None


def may_go_down(state: SessionState, rules: SessionRules) -> bool:
    """Tell whether this easy turn is the one that lets the session go down."""
    return state.easy_turns + 1 >= rules.downgrade_after


def after(
    state: SessionState | None, facts: RequestFacts, tier: str, deployment: str, *, was_easy: bool | None
) -> SessionState:
    """Return what a turn leaves.

    Args:
        state: what the turn before left.
        facts: of this turn's request.
        tier: who answered.
        deployment: who answered.
        was_easy: whether a cheaper tier than the session's would have been chosen; None where nobody judged.
    """
    if state is None:
        return SessionState(tier, deployment, facts.input_tokens)
    easy_turns = state.easy_turns if was_easy is None else state.easy_turns + 1 if was_easy else 0
    if tier != state.tier:
        easy_turns = 0
    return SessionState(tier, deployment, facts.input_tokens, state.turns + 1, easy_turns)


class SessionBook:
    """The sessions of all tenants: bounded, forgotten after their time, and never shared between tenants."""

    def __init__(self, secret: bytes, clock: Clock, most: int = MOST_SESSIONS) -> None:
        own = hashlib.blake2b(secret, digest_size=32, person=b"headgate-session").digest()
        self._keyed = hashlib.blake2b(key=own, digest_size=12)
        self._clock = clock
        self._most = most
        self._by_tenant: dict[str, OrderedDict[str, tuple[float, SessionState]]] = {}

    def open(self, caller: Caller, request: ChatRequest, facts: RequestFacts, policy: TenantPolicy) -> Session | None:
        """Return the request's session, or None where the policy wants none.

        A session whose id was found in the conversation's beginning goes on only with a conversation that has begun.
        """
        if not policy.routing.sessions.enabled:
            return None
        named = request.demands.session or _named(request)
        id_ = self._id(caller, named, request)
        if named is None and not facts.turns:
            return Session(id_, None)
        return Session(id_, self._state(caller.tenant, id_, policy))

    def _state(self, tenant: str, id_: str, policy: TenantPolicy) -> SessionState | None:
        """Return what the last turn left, unless too long ago or on a tier that may not be used any more."""
        entry = self._by_tenant[tenant].get(id_) if tenant in self._by_tenant else None
        if entry is None or self._clock.monotonic_s() - entry[0] > policy.routing.sessions.ttl_s:
            return None
        return entry[1] if entry[1].tier in policy.tiers else None

    def note(self, tenant: str, session: Session) -> None:
        """Remember a turn; the tenant's longest unused session goes when there are too many."""
        assert session.state is not None, "a turn leaves a state"
        sessions = self._by_tenant.get(tenant)
        if sessions is None:
            sessions = self._by_tenant[tenant] = OrderedDict()
        sessions[session.id] = self._clock.monotonic_s(), session.state
        sessions.move_to_end(session.id)
        if len(sessions) > self._most:
            sessions.popitem(last=False)

    def _id(self, caller: Caller, named: str | None, request: ChatRequest) -> str:
        user = (caller.user or request.user or "").encode("utf-8", "surrogatepass")
        whose = caller.tenant.encode() + b"\0" + user + b"\0"
        digest = self._keyed.copy()
        if named is None:
            digest.update(whose + caller.key_id.encode() + b"\0found\0" + _beginning(request))
        else:
            digest.update(whose + b"named\0" + named.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


class _Names(msgspec.Struct, frozen=True):
    session_id: str | None = None
    conversation_id: str | None = None


_names_decoder = msgspec.json.Decoder(_Names | None)


def _named(request: ChatRequest) -> str | None:
    """Return the conversation's name from the body's metadata, which may have any shape."""
    if "metadata" not in request.fields:
        return None
    try:
        names = _names_decoder.decode(request.fields["metadata"])
    except msgspec.ValidationError:
        return None
    return None if names is None else names.session_id or names.conversation_id


def _beginning(request: ChatRequest) -> bytes:
    """Return roles and contents up to the first user turn, cut to a bound but for their length."""
    parts: list[bytes] = []
    for message in request.messages:
        content = bytes(message.content)
        parts.append(
            b"%b:%d:%b" % (message.role.encode("utf-8", "surrogatepass"), len(content), content[:HASHED_BYTES])
        )
        if message.role == "user":
            break
    return b"\n".join(parts)[: 2 * HASHED_BYTES]
