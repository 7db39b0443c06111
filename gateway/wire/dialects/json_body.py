"""Read a body as JSON, and what is looked into of it as types."""

from typing import Any, TypeVar

import msgspec

from core.errors import InvalidRequest

Json = dict[str, Any]
Shape = TypeVar("Shape", bound=msgspec.Struct)


def shaped(body: Json, shape: type[Shape]) -> Shape:
    """Return the fields that are looked into, with the types they must have.

    Raises:
        InvalidRequest: one has another type.
    """
    try:
        return msgspec.convert(body, shape)
    except msgspec.ValidationError as problem:
        raise InvalidRequest(f"The request body cannot be used: {problem}") from problem


def json_object(body: bytes) -> Json:
    """Decode a body that is a JSON object.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        decoded = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise InvalidRequest(f"The request body is not valid JSON: {problem}") from problem
    if not isinstance(decoded, dict):
        raise InvalidRequest("The request body is not a JSON object.")
    return decoded
