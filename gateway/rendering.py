"""The one place that turns errors into what a client reads: the OpenAI error object, as a body or as an SSE event."""

import msgspec

from core.errors import HeadgateError


def error_body(error: HeadgateError) -> bytes:
    """Return the OpenAI error object as JSON."""
    return msgspec.json.encode(
        {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}
    )


def error_event(error: HeadgateError) -> bytes:
    """Return the error object as one SSE data frame; the official SDKs raise on it."""
    return b"data: " + error_body(error) + b"\n\n"


def error_headers(error: HeadgateError) -> list[tuple[str, str]]:
    """Return the headers that tell the client whether and when to try again."""
    return list(error.headers().items())
