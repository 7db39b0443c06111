"""Says what a healthy model would answer: tokens, tool calls and usage, determined by request and script."""

import base64
import hashlib
import json
import math
import re
import struct
from dataclasses import dataclass
from typing import Any

from gateway.faults.upstream.script import Script

CREATED_S = 1_700_000_000
FRAGMENT_CHARS = 8
MAX_CHOICES = 16

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer; `pieces` are the deltas of one choice in order, the same for every choice."""

    id: str
    model: str
    pieces: tuple[Json, ...]
    text: str | None
    tool_calls: tuple[Json, ...]
    finish: str | None
    choices: int
    prompt_tokens: int

    @property
    def completion_tokens(self) -> int:
        """Content chunks over all choices."""
        return len(self.pieces) * self.choices


def make_reply(script: Script, body: Json, number: int) -> Reply:
    """Answer a chat or completion request; `number` makes the id unique and keeps it predictable."""
    calls = _tool_calls(script, body, number)
    tokens = () if calls else _tokens(script, body)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    is_cut = isinstance(limit, int) and len(tokens) > limit
    tokens = tokens[:limit] if is_cut else tokens
    natural = "tool_calls" if calls else "length" if is_cut else "stop"
    choices = body.get("n")
    return Reply(
        id=f"chatcmpl-up{number:06d}",
        model=script.model if script.model is not None else str(body.get("model", "scripted")),
        pieces=tuple(_call_pieces(calls)) if calls else tuple({"content": token} for token in tokens),
        text=None if calls else "".join(tokens),
        tool_calls=calls,
        finish=None if script.finish == "none" else script.finish or natural,
        choices=min(choices, MAX_CHOICES) if isinstance(choices, int) and choices > 0 else 1,
        prompt_tokens=count_prompt_tokens(body),
    )


def usage_object(script: Script, prompt: int, completion: int) -> Json:
    """The usage numbers, wrong (ten times as many, plus seven) where the script asks for it."""
    prompt = prompt if script.prompt is None else script.prompt
    completion = completion if script.completion is None else script.completion
    if script.usage == "wrong":
        prompt, completion = prompt * 10 + 7, completion * 10 + 7
    usage: Json = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    if script.cached is not None:
        usage["prompt_tokens_details"] = {"cached_tokens": script.cached}
    return usage


def count_prompt_tokens(body: Json) -> int:
    """Words over all message texts, prompts or embedding inputs; a list of token ids counts its ids."""
    texts = [_text_of(message.get("content")) for message in _messages(body)]
    for key in ("prompt", "input"):
        for item in inputs_of(body.get(key)):
            texts.append(item if isinstance(item, str) else " ".join(map(str, item)))
    return sum(len(text.split()) for text in texts)


def inputs_of(value: Any) -> list[Any]:
    """Bring the forms of `prompt` and `input` (text, texts, token ids, lists of ids) to one list."""
    if value is None:
        return []
    if isinstance(value, str) or (isinstance(value, list) and value and isinstance(value[0], int)):
        return [value]
    return list(value) if isinstance(value, list) else []


def embed(item: Any, dims: int) -> list[float]:
    """A unit vector of `dims` numbers that depends only on the item."""
    seed = json.dumps(item).encode()
    raw = [hashlib.sha256(seed + index.to_bytes(4, "big")).digest() for index in range(dims)]
    values = [int.from_bytes(digest[:4], "big") / 2**31 - 1.0 for digest in raw]
    norm = math.sqrt(sum(value * value for value in values)) or 1.0
    return [value / norm for value in values]


def encode_base64(vector: list[float]) -> str:
    """Little-endian float32, as the OpenAI API sends for `encoding_format: base64`."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


def last_user_text(body: Json) -> str:
    """The text of the last user message, or of the last prompt."""
    for message in reversed(_messages(body)):
        if message.get("role") == "user":
            return _text_of(message.get("content"))
    prompts = inputs_of(body.get("prompt"))
    return str(prompts[-1]) if prompts else ""


def _messages(body: Json) -> list[Json]:
    messages = body.get("messages")
    return [message for message in messages if isinstance(message, dict)] if isinstance(messages, list) else []


def _text_of(content: Any) -> str:
    if isinstance(content, list):
        return " ".join(str(part["text"]) for part in content if isinstance(part, dict) and "text" in part)
    return content if isinstance(content, str) else ""


def _tokens(script: Script, body: Json) -> tuple[str, ...]:
    text = script.text
    if text is None:
        wanted = body.get("response_format") or {}
        schema = wanted.get("json_schema", {}).get("schema") if isinstance(wanted, dict) else None
        text = json.dumps(example_of(schema)) if schema else f"answer to: {last_user_text(body)}"
    pieces = re.findall(r"\s*\S+|\s+$", text)
    if script.n is not None:
        pieces = _resized(pieces, script.n)
    if script.huge_bytes and pieces:
        pieces[0] += "x" * script.huge_bytes
    return tuple(pieces)


def _resized(pieces: list[str], n: int) -> list[str]:
    if n < len(pieces):
        return [*pieces[: n - 1], "".join(pieces[n - 1 :])] if n else []
    return pieces + [f" w{index}" for index in range(len(pieces), n)]


def _tool_calls(script: Script, body: Json, number: int) -> tuple[Json, ...]:
    tools = [tool["function"] for tool in body.get("tools") or [] if isinstance(tool, dict) and "function" in tool]
    choice = body.get("tool_choice")
    if isinstance(choice, dict):
        wanted = choice.get("function", {}).get("name")
        tools = [tool for tool in tools if tool.get("name") == wanted] or tools
    is_forced = choice == "required" or isinstance(choice, dict)
    count = script.tools or (1 if is_forced and tools else 0)
    functions = tools or [{"name": "lookup", "parameters": {"properties": {"query": {"type": "string"}}}}]
    return tuple(_tool_call(functions[index % len(functions)], number, index) for index in range(count))


def _tool_call(function: Json, number: int, index: int) -> Json:
    arguments = json.dumps(example_of(function.get("parameters") or {"type": "object"}))
    return {
        "id": f"call_up{number:06d}_{index}",
        "type": "function",
        "function": {"name": function.get("name", "lookup"), "arguments": arguments},
    }


def _call_pieces(calls: tuple[Json, ...]) -> list[Json]:
    pieces: list[Json] = []
    for index, call in enumerate(calls):
        opening = {**call, "index": index, "function": {"name": call["function"]["name"], "arguments": ""}}
        pieces.append({"tool_calls": [opening]})
        text = call["function"]["arguments"]
        for start in range(0, len(text), FRAGMENT_CHARS):
            fragment = {"index": index, "function": {"arguments": text[start : start + FRAGMENT_CHARS]}}
            pieces.append({"tool_calls": [fragment]})
    return pieces


def example_of(schema: Json, root: Json | None = None, depth: int = 0) -> Any:
    """Give the plainest value that a JSON Schema allows: every property, one item, the first of any choice."""
    root = root or schema
    if "$ref" in schema and depth < 16:
        target: Any = root
        for part in str(schema["$ref"]).removeprefix("#/").split("/"):
            target = target[part]
        return example_of(target, root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for choice in ("anyOf", "oneOf", "allOf"):
        if schema.get(choice):
            return example_of(schema[choice][0], root, depth + 1)
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        items = schema.get("properties", {}).items() if depth < 16 else ()
        return {name: example_of(part, root, depth + 1) for name, part in items}
    if kind == "array":
        return [example_of(schema.get("items", {}), root, depth + 1)] * max(1, schema.get("minItems", 1))
    return _plain_example(kind, schema)


def _plain_example(kind: str, schema: Json) -> Any:
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    if kind == "boolean":
        return True
    return None if kind == "null" else "sample".ljust(schema.get("minLength", 0), "x")
