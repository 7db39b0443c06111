"""The documented rules that keep requests out of the cache and answers out of the store; pure.

Tokens for requests (`Bypass.why`):
- `policy`: the tenant's cache is off; `caller`: `x-headgate-cache: bypass`; `refresh`: not looked up, stored after
- `tools`, `n` (more than one choice), `media`, `logprobs`, `audio`: the answer is more than one text
- `no_text`: the last turn is not a user's text
- `too_long`: the conversation is longer than LONGEST_CACHED_BYTES; repeats are rare and looking costs time
- `time`: the answer depends on the moment
- `personal`: about the asker's own affairs, and no `user` was named; with one, it is kept for that user
- `no_user`: the policy scopes by user, and none was named
- `secret`: the prompt carries a credential
- `path`: a route that the operator mapped; nothing is known of its answers

Tokens for answers: `finish` (did not end with `stop`; an aborted stream has no such end), `empty`, `other_tier` (a
fallback answered for the tier or deployment that was asked for), `no_store`, `answer_secret`.
"""

from collections.abc import Sequence
from typing import Literal

from cache.sensitive import has_secret, is_personal, is_time_dependent
from core.cached import CachedAnswer
from core.chat import NULL, ChatRequest, Message
from core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, RuledTarget, TierTarget

RequestRefusal = Literal[
    "policy", "caller", "refresh", "tools", "n", "media", "logprobs", "audio", "no_text", "too_long", "time",
    "personal", "no_user", "secret", "path",
]  # fmt: skip
LONGEST_CACHED_BYTES = 32 * 1024
_UNSHARED_FIELDS: tuple[tuple[str, RequestRefusal], ...] = (
    ("logprobs", "logprobs"), ("top_logprobs", "logprobs"), ("audio", "audio"),
)  # fmt: skip
_OFF = (b"null", b"false", b"0")
_NO_CALLS = (b"null", b"[]")
AnswerRefusal = Literal["finish", "empty", "other_tier", "no_store", "answer_secret"]


def refuse_request(request: ChatRequest, policy: EffectivePolicy) -> RequestRefusal | None:
    """Return why the cache is not asked, or None when it is."""
    rules = policy.tenant_policy.cache
    if not rules.enabled:
        return "policy"
    if request.demands.cache.bypass:
        return "caller"
    if request.path == EMBEDDINGS:
        return _refuse_embeddings(request, policy)
    shape = _refuse_shape(request)
    if shape is not None:
        return shape
    text = request.last_user_text
    if text is None:
        return "no_text"
    if request.prompt_bytes > LONGEST_CACHED_BYTES:
        return "too_long"
    if is_time_dependent(text):
        return "time"
    if request.user is None and rules.per_user:
        return "no_user"
    if request.user is None and is_personal(text):
        return "personal"
    if has_secret(text):
        return "secret"
    return "refresh" if request.demands.cache.refresh else None


def _refuse_embeddings(request: ChatRequest, policy: EffectivePolicy) -> RequestRefusal | None:
    """Vectors of the same input stay the same and say nothing that the input did not, whatever it is about."""
    if request.user is None and policy.tenant_policy.cache.per_user:
        return "no_user"
    if request.prompt_bytes > LONGEST_CACHED_BYTES:
        return "too_long"
    return "refresh" if request.demands.cache.refresh else None


def refuse_store(request: ChatRequest, policy: EffectivePolicy, answer: CachedAnswer) -> str | None:
    """Return why `answer` is not stored, or None when it is."""
    refusal = refuse_request(request, policy)
    if refusal not in (None, "refresh"):
        return refusal
    return refuse_answer(request, policy, answer)


def refuse_answer(request: ChatRequest, policy: EffectivePolicy, answer: CachedAnswer) -> AnswerRefusal | None:
    """Return why this answer must not be kept, whatever the request."""
    if request.demands.cache.no_store:
        return "no_store"
    if answer.finish_reason != "stop":
        return "finish"
    if not answer.content.strip():
        return "empty"
    match policy.target:
        case TierTarget(tier) if answer.tier != tier:
            return "other_tier"
        case DeploymentTarget(deployment) if answer.deployment != deployment:
            return "other_tier"
        case RuledTarget() as ruled if not ruled.includes(answer.tier, answer.deployment):
            return "other_tier"
        case AutoTarget() | TierTarget() | DeploymentTarget() | RuledTarget():
            return "answer_secret" if has_secret(answer.content) else None


def needs_user_scope(request: ChatRequest, policy: EffectivePolicy) -> bool:
    """Whether the answer belongs to one user: the policy says so, or the question is about the asker's own affairs."""
    if policy.tenant_policy.cache.per_user:
        return True
    return request.last_user_text is not None and is_personal(request.last_user_text)


def _refuse_shape(request: ChatRequest) -> RequestRefusal | None:
    if request.path not in (CHAT, COMPLETIONS):
        return "path"
    if request.has_tools or _speaks_of_tools(request.messages):
        return "tools"
    if request.n > 1:
        return "n"
    if request.has_media:
        return "media"
    for name, refusal in _UNSHARED_FIELDS:
        asked = request.fields.get(name)
        if asked is not None and bytes(asked) not in _OFF:
            return refusal
    return None


def _speaks_of_tools(messages: Sequence[Message]) -> bool:
    for message in messages:
        if message.role == "tool":
            return True
        if message.tool_calls is not NULL and bytes(message.tool_calls) not in _NO_CALLS:
            return True
    return False
