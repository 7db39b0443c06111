"""The body of a Responses request as a chat request: input items become messages, `text.format` the response format.

What lives on a server between requests (`previous_response_id`, `conversation`, `background`, stored prompts, item
references) and tools that a server runs are refused; `store` is accepted and nothing is stored.
"""

from typing import Any

import msgspec

from core.errors import InvalidRequest
from gateway.wire.dialects.json_body import Json, shaped

STATEFUL = ("previous_response_id", "conversation", "background", "prompt", "context_management")
DROPPED = ("input", "instructions", "text", "reasoning", "max_output_tokens", "tools", "tool_choice", "stream",
           "include", "store", "truncation", "top_logprobs", "stream_options", "max_tool_calls", *STATEFUL)  # fmt: skip
ROLES = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}


class _Text(msgspec.Struct):
    format: Json | None = None
    verbosity: str | None = None


class _Reasoning(msgspec.Struct):
    effort: str | None = None


class _Shape(msgspec.Struct):
    """The fields that are looked into; everything else is passed on or repeated as it is."""

    model: str
    instructions: str | None = None
    text: _Text | None = None
    reasoning: _Reasoning | None = None
    include: list[str] | None = None
    tools: list[Json] | None = None
    top_logprobs: int | None = None


def chat_fields(body: Json) -> Json:
    """Return the fields of the chat request.

    Raises:
        InvalidRequest: something that a chat cannot say, named by its field.
    """
    shape = shaped(body, _Shape)
    for name in STATEFUL:
        if body.get(name):
            raise InvalidRequest(f"{name!r} needs a server that keeps responses; send the whole input.", param=name)
    if body.get("truncation") not in (None, "disabled"):
        raise InvalidRequest("'truncation' must be 'disabled': nothing is cut unasked.", param="truncation")
    fields = {name: value for name, value in body.items() if name not in DROPPED}
    fields["messages"] = _messages(body)
    if body.get("stream"):
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    if body.get("max_output_tokens") is not None:
        fields["max_completion_tokens"] = body["max_output_tokens"]
    if shape.tools:
        fields["tools"] = [_tool(tool) for tool in shape.tools]
    if body.get("tool_choice") is not None:
        fields["tool_choice"] = _tool_choice(body["tool_choice"])
    return fields | _wishes(shape)


def _wishes(shape: _Shape) -> Json:
    """Return the response format, the effort of reasoning and log-probabilities as a chat asks for them."""
    wishes: Json = {}
    text, reasoning = shape.text or _Text(), shape.reasoning or _Reasoning()
    if text.format is not None and text.format.get("type") != "text":
        kind = text.format.get("type")
        schema = {name: value for name, value in text.format.items() if name != "type"}
        wishes["response_format"] = {"type": kind} | ({"json_schema": schema} if kind == "json_schema" else {})
    if text.verbosity is not None:
        wishes["verbosity"] = text.verbosity
    if reasoning.effort is not None:
        wishes["reasoning_effort"] = reasoning.effort
    if shape.top_logprobs or "message.output_text.logprobs" in (shape.include or []):
        wishes |= {"logprobs": True, "top_logprobs": shape.top_logprobs or 0}
    return wishes


def _messages(body: Json) -> list[Json]:
    messages: list[Json] = []
    if body.get("instructions"):
        messages.append({"role": "system", "content": body["instructions"]})
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise InvalidRequest("'input' must be a text or a list of items, and not empty.", param="input")
    for item in items:
        _add_item(messages, item)
    return messages


def _add_item(messages: list[Json], item: Any) -> None:
    if not isinstance(item, dict):
        raise InvalidRequest("Every item of 'input' must be an object.", param="input")
    match item.get("type", "message"):
        case "message":
            messages.append(_message(item))
        case "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments", "")}
            call = {"id": item.get("call_id"), "type": "function", "function": function}
            if not messages or messages[-1]["role"] != "assistant":
                messages.append({"role": "assistant", "content": None})
            messages[-1].setdefault("tool_calls", []).append(call)
        case "function_call_output":
            output = item.get("output")
            content = [_part(part) for part in output] if isinstance(output, list) else str(output or "")
            messages.append({"role": "tool", "tool_call_id": item.get("call_id"), "content": content})
        case "reasoning":
            pass  # the thoughts of an earlier answer have no place in a chat
        case kind:
            raise InvalidRequest(f"Items of type {str(kind)[:60]!r} are not supported.", param="input")


def _message(item: Json) -> Json:
    role = ROLES.get(str(item.get("role")))
    if role is None:
        raise InvalidRequest(f"The role {str(item.get('role'))[:60]!r} is not known.", param="input")
    content = item.get("content")
    if isinstance(content, list):
        parts = [_part(part) for part in content]
        content = parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts
    return {"role": role, "content": content}


def _part(part: Any) -> Json:
    match part.get("type") if isinstance(part, dict) else None:
        case "input_text" | "output_text" | "text":
            return {"type": "text", "text": part.get("text", "")}
        case "refusal":
            return {"type": "refusal", "refusal": part.get("refusal", "")}
        case "input_image" if part.get("image_url"):
            detail = {} if part.get("detail") is None else {"detail": part["detail"]}
            return {"type": "image_url", "image_url": {"url": part["image_url"]} | detail}
        case "input_file" if part.get("file_data"):
            return {"type": "file", "file": {name: part[name] for name in ("filename", "file_data") if name in part}}
        case "input_audio":
            return {"type": "input_audio", "input_audio": part.get("input_audio")}
        case kind:
            raise InvalidRequest(f"Content of type {str(kind)[:60]!r} is not supported here.", param="input")


def _tool(tool: Any) -> Json:
    if not isinstance(tool, dict) or tool.get("type") != "function":
        kind = tool.get("type") if isinstance(tool, dict) else tool
        raise InvalidRequest(f"Tools of type {str(kind)[:60]!r} are not run here; send functions.", param="tools")
    return {"type": "function", "function": {name: value for name, value in tool.items() if name != "type"}}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, str):
        return choice
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    raise InvalidRequest("'tool_choice' must be auto, none, required or a function.", param="tool_choice")
