"""The body of a Messages request (Anthropic's wire) as a chat request: content blocks become parts, calls and results.

Tools that a server runs, and servers of tools, are refused. `thinking` and `cache_control` are wishes about how, not
about what: they are left out, as the thoughts of earlier answers are.
"""

from typing import Any

import msgspec

from core.errors import InvalidRequest
from gateway.wire.dialects.json_body import Json, shaped

DROPPED = ("system", "messages", "tools", "tool_choice", "stop_sequences", "stream", "metadata", "thinking",
           "cache_control", "output_config", "output_format", "container", "inference_geo")  # fmt: skip


class _Metadata(msgspec.Struct):
    user_id: str | None = None


class _Format(msgspec.Struct):
    schema: Json


class _OutputConfig(msgspec.Struct):
    format: _Format | None = None


class _Shape(msgspec.Struct):
    """The fields that are looked into; everything else is passed on as it is."""

    model: str
    messages: list[Json]
    tools: list[Json] | None = None
    stop_sequences: list[str] | None = None
    metadata: _Metadata | None = None
    output_config: _OutputConfig | None = None
    output_format: _Format | None = None


KEPT_CHOICES = {"auto": "auto", "any": "required", "none": "none"}


def chat_fields(body: Json) -> Json:
    """Return the fields of the chat request.

    Raises:
        InvalidRequest: something that a chat cannot say, named by its field.
    """
    for name in ("mcp_servers", "container"):
        if body.get(name):
            raise InvalidRequest(f"{name!r} is not supported: the gateway runs no tools.", param=name)
    fields = {name: value for name, value in body.items() if name not in (*DROPPED, "mcp_servers")}
    shape = shaped(body, _Shape)
    fields["messages"] = _messages(shape.messages, body.get("system"))
    if body.get("stream"):
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    if body.get("stop_sequences"):
        fields["stop"] = body["stop_sequences"]
    if shape.tools:
        fields["tools"] = [_tool(tool) for tool in shape.tools]
    if (choice := body.get("tool_choice")) is not None:
        fields |= _tool_choice(choice)
    if shape.metadata is not None and shape.metadata.user_id is not None:
        fields["user"] = shape.metadata.user_id
    form = shape.output_format if shape.output_config is None else shape.output_config.format
    if form is not None:
        schema = {"name": "answer", "strict": True, "schema": form.schema}
        fields["response_format"] = {"type": "json_schema", "json_schema": schema}
    return fields


def _messages(given: list[Json], system: Any) -> list[Json]:
    if not given:
        raise InvalidRequest("'messages' must hold at least one message.", param="messages")
    messages: list[Json] = []
    if system:
        messages.append({"role": "system", "content": _text(system, "system")})
    for message in given:
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            raise InvalidRequest(f"The role {str(role)[:60]!r} is not known.", param="messages")
        content = message.get("content")
        if isinstance(content, str):
            messages.append({"role": role, "content": content})
        elif role == "assistant":
            messages.append(_said(_blocks(content)))
        else:
            messages += _asked(role, _blocks(content))
    return messages


def _blocks(content: Any) -> list[Json]:
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise InvalidRequest("The content of a message must be a text or a list of blocks.", param="messages")
    return content


def _said(blocks: list[Json]) -> Json:
    """Turn what the assistant said into one message; its thoughts have no place in a chat."""
    texts, calls = [], []
    for block in blocks:
        match block.get("type"):
            case "text":
                texts.append(str(block.get("text", "")))
            case "tool_use":
                arguments = msgspec.json.encode(block.get("input") or {}).decode()
                function = {"name": block.get("name"), "arguments": arguments}
                calls.append({"id": block.get("id"), "type": "function", "function": function})
            case "thinking" | "redacted_thinking":
                pass
            case kind:
                raise _unknown(kind)
    message: Json = {"role": "assistant", "content": "".join(texts) if texts else None}
    return message | ({"tool_calls": calls} if calls else {})


def _asked(role: str, blocks: list[Json]) -> list[Json]:
    """Turn a user's turn into the results of tools, which a chat wants first, and then what the user says."""
    results, parts = [], []
    for block in blocks:
        if block.get("type") == "tool_result":
            text, media = _result(block)
            results.append({"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text})
            parts += media
        else:
            parts.append(_part(block))
    if len(parts) == 1 and parts[0]["type"] == "text":
        return [*results, {"role": role, "content": parts[0]["text"]}]
    return [*results, {"role": role, "content": parts}] if parts else results


def _result(block: Json) -> tuple[str, list[Json]]:
    """Return the text of a tool's result, and its media, which only a user's turn can carry in a chat."""
    content = block.get("content")
    inner = [{"type": "text", "text": content or ""}] if isinstance(content, str | None) else _blocks(content)
    parts = [_part(one) for one in inner]
    text = "\n".join(part["text"] for part in parts if part["type"] == "text")
    return f"Error: {text}" if block.get("is_error") else text, [part for part in parts if part["type"] != "text"]


def _part(block: Json) -> Json:
    given = block.get("source")
    source = given if isinstance(given, dict) else {}
    match block.get("type"), source.get("type"):
        case "text", _:
            return {"type": "text", "text": str(block.get("text", ""))}
        case "image", "base64":
            return {"type": "image_url", "image_url": {"url": _data_url(source)}}
        case "image", "url":
            return {"type": "image_url", "image_url": {"url": source.get("url")}}
        case "document", "base64":
            named = {"filename": block.get("title") or "document.pdf", "file_data": _data_url(source)}
            return {"type": "file", "file": named}
        case "document", "text":
            return {"type": "text", "text": str(source.get("data", ""))}
        case kind, _:
            raise _unknown(kind)


def _data_url(source: Json) -> str:
    return f"data:{source.get('media_type')};base64,{source.get('data')}"


def _unknown(kind: Any) -> InvalidRequest:
    return InvalidRequest(f"Content blocks of type {str(kind)[:60]!r} are not supported here.", param="messages")


def _text(value: Any, param: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(one, dict) and one.get("type") == "text" for one in value):
        return "\n".join(str(one.get("text", "")) for one in value)
    raise InvalidRequest(f"{param!r} must be a text or a list of text blocks.", param=param)


def _tool(tool: Any) -> Json:
    if not isinstance(tool, dict) or tool.get("type") not in (None, "custom"):
        kind = tool.get("type") if isinstance(tool, dict) else tool
        raise InvalidRequest(f"Tools of type {str(kind)[:60]!r} are not run here; send your own.", param="tools")
    names = {"name": "name", "description": "description", "input_schema": "parameters", "strict": "strict"}
    return {"type": "function", "function": {new: tool[old] for old, new in names.items() if old in tool}}


def _tool_choice(choice: Any) -> Json:
    kind = choice.get("type") if isinstance(choice, dict) else None
    parallel = {"parallel_tool_calls": False} if kind and choice.get("disable_parallel_tool_use") else {}
    if kind in KEPT_CHOICES:
        return {"tool_choice": KEPT_CHOICES[kind], **parallel}
    if kind == "tool":
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}, **parallel}
    raise InvalidRequest("'tool_choice' must be auto, any, none or a tool.", param="tool_choice")
