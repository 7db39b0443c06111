"""Read the declared facts of a request; nothing of its text is kept."""

import msgspec

from core.chat import ChatRequest
from core.facts import Ending, RequestFacts, ResponseFormat
from router.script import script_of

ENDINGS: dict[str, Ending] = {"user": "user", "assistant": "assistant", "tool": "tool", "function": "tool"}
MAX_TAGS = 16
MAX_TAG_CHARACTERS = 64


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: str = "text"


class _Metadata(msgspec.Struct, frozen=True):
    tags: str | list[str] | None = None


_format_decoder = msgspec.json.Decoder(_ResponseFormat | None)
_metadata_decoder = msgspec.json.Decoder(_Metadata | None)


def facts_of(request: ChatRequest, path: str, user: str | None = None) -> RequestFacts:
    """Return the facts that decisions are made on.

    Args:
        request: as it was parsed.
        path: the route that it came on.
        user: the end user that the caller speaks for, where that is known better than by the body.
    """
    text = request.last_user_text or ""
    script, non_latin_ratio = script_of(text)
    turns = 0
    for message in request.messages:
        if message.role == "assistant":
            turns += 1
    demands = request.demands
    return RequestFacts(  # by position: see `core.trace`
        request.model,
        path,
        request.path,
        request.user if user is None else user,
        _tags(request),
        request.stream,
        request.has_tools,
        request.has_media,
        _response_format(request) if request.wants_json else "text",
        request.estimated_input_tokens(),
        request.max_tokens,
        request.n,
        script,
        round(non_latin_ratio, 4) if non_latin_ratio else 0.0,
        ENDINGS.get(request.messages[-1].role, "other") if request.messages else "other",
        turns,
        len(text),
        demands.deadline_ms,
        demands.read_timeout_ms,
    )


def _response_format(request: ChatRequest) -> ResponseFormat:
    """Return the kind of answer that was asked for; kinds that we do not know are as strict as a schema."""
    written = _format_decoder.decode(request.fields["response_format"])
    return "json_object" if written is not None and written.type == "json_object" else "json_schema"


def _tags(request: ChatRequest) -> tuple[str, ...]:
    """Return the tags of header and body, sorted."""
    if not request.demands.tags and "metadata" not in request.fields:
        return ()
    return tuple(sorted({*request.demands.tags, *_metadata_tags(request)}))


def _metadata_tags(request: ChatRequest) -> list[str]:
    """Return `metadata.tags`, a list or a text with commas; metadata of another shape is the app's own affair."""
    if "metadata" not in request.fields:
        return []
    try:
        written = _metadata_decoder.decode(request.fields["metadata"])
    except msgspec.ValidationError:
        return []
    tags = None if written is None else written.tags
    return split_tags(tags) if isinstance(tags, str) else [tag for tag in tags or () if _is_tag(tag)][:MAX_TAGS]


def split_tags(text: str) -> list[str]:
    """Return the tags of a text with commas; what is empty, too long or too many is left out."""
    return [tag for tag in (part.strip() for part in text.split(",")) if _is_tag(tag)][:MAX_TAGS]


def _is_tag(tag: str) -> bool:
    return 0 < len(tag) <= MAX_TAG_CHARACTERS and tag.isprintable()
