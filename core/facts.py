"""What a request declares, without any of its text: what rules, guards, sessions and the planner decide on."""

from typing import Literal

import msgspec

ResponseFormat = Literal["text", "json_object", "json_schema"]
Script = Literal[
    "latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "han", "kana", "hangul", "thai", "other"
]  # fmt: skip

Ending = Literal["user", "assistant", "tool", "other"]


class RequestFacts(msgspec.Struct, frozen=True, gc=False):
    """The declared facts of one request.

    Attributes:
        model: the name that was sent as `model`.
        path: the route, such as `/v1/chat/completions`.
        endpoint: where it goes below a deployment's base URL.
        user: the end user that the request speaks for.
        tags: what the caller tagged it with, sorted.
        input_tokens: estimated from bytes, above what common tokenizers need for most text.
        max_tokens: the caller's own output limit.
        n: how many choices were asked for.
        script: the script that most letters of the last user text outside the Latin one are in, `latin` where those
            are few.
        non_latin_ratio: their share of the letters, in [0, 1].
        ends_in: whose message is the last: `tool` inside an agent loop, `other` for roles that are none of these.
        turns: answers of the assistant that the conversation holds.
        last_user_chars: length of the last user text, 0 where the last message is none.
        deadline_ms: the caller's own limit on the total time; `read_timeout_ms` that of its SDK.
    """

    model: str
    path: str
    endpoint: str
    user: str | None
    tags: tuple[str, ...]
    stream: bool
    has_tools: bool
    has_media: bool
    response_format: ResponseFormat
    input_tokens: int
    max_tokens: int | None
    n: int
    script: Script
    non_latin_ratio: float
    ends_in: Ending = "user"
    turns: int = 0
    last_user_chars: int = 0
    deadline_ms: int | None = None
    read_timeout_ms: int | None = None
