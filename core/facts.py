"""What a request declares, without any of its text: what rules, guards, sessions and the planner decide on."""

from dataclasses import dataclass
from typing import Literal

ResponseFormat = Literal["text", "json_object", "json_schema"]
Script = Literal[
    "latin", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "han", "kana", "hangul", "thai", "other"
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class RequestFacts:
    """The declared facts of one request.

    Attributes:
        model: the name that was sent as `model`.
        path: the route, such as `/v1/chat/completions`.
        user: the end user that the request speaks for.
        tags: what the caller tagged it with, sorted.
        input_tokens: estimated from bytes, above what common tokenizers need for most text.
        max_tokens: the caller's own output limit.
        n: how many choices were asked for.
        script: the script that most letters of the last user text outside the Latin one are in, `latin` where those
            are few.
        non_latin_ratio: their share of the letters, in [0, 1].
    """

    model: str
    path: str
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
