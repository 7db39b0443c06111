"""Whatever arrives, the translators either translate it or refuse it in words."""

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.chat import Demands
from core.errors import InvalidRequest, UpstreamFailed
from gateway.wire.dialects.completions import as_chat
from gateway.wire.dialects.dialect import Dialect
from gateway.wire.dialects.served import DIALECTS

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(
    ["message", "function_call", "function_call_output", "input_text", "input_image", "text", "image", "document",
     "tool_use", "tool_result", "function", "custom", "tool", "any", "json_schema", "base64"]
)  # fmt: skip
NAMES = st.sampled_from(
    ["type", "role", "content", "text", "source", "input", "output", "name", "arguments", "id", "image_url", "format"]
)
OBJECT = st.dictionaries(NAMES, JSON | KINDS | st.sampled_from(["user", "assistant"]), max_size=5)
PARTS = st.lists(OBJECT, max_size=3)
FIELDS = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={
        "messages": st.lists(OBJECT | st.builds(lambda parts: {"role": "user", "content": parts}, PARTS), max_size=3),
        "input": st.text(max_size=3) | PARTS,
        "prompt": JSON,
        "system": JSON | PARTS,
        "instructions": JSON,
        "tools": PARTS,
        "tool_choice": JSON | OBJECT,
        "text": JSON | OBJECT,
        "reasoning": JSON,
        "metadata": JSON,
        "stop_sequences": JSON,
        "output_config": JSON | OBJECT,
        "stream": st.booleans(),
        "echo": JSON,
    },
)
FRAME = st.fixed_dictionaries(
    {},
    optional={
        "id": JSON,
        "created": JSON,
        "usage": JSON,
        "choices": JSON
        | st.lists(
            st.fixed_dictionaries(
                {}, optional={"index": JSON, "delta": JSON | OBJECT, "message": JSON | OBJECT, "finish_reason": JSON}
            ),
            max_size=2,
        ),
    },
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda one: one.route)
@settings(max_examples=150, deadline=None)
@given(body=FIELDS, frames=st.lists(FRAME, max_size=3))
def test_bodies_and_answers_of_any_shape_are_translated_or_refused(
    dialect: Dialect, body: dict[str, Any], frames: list[dict[str, Any]]
) -> None:
    try:
        spoken = dialect.read(msgspec.json.encode(body), "req_ab", Demands())
        if dialect.route == "/v1/completions":
            spoken = as_chat(spoken.request)
    except InvalidRequest:
        return
    assert msgspec.json.decode(spoken.request.upstream_body("up", ask_usage=True, max_tokens=None))["model"] == "up"
    if spoken.translator is None:
        return
    with suppress(UpstreamFailed):
        for frame in frames:
            spoken.translator.frame(b"data: " + msgspec.json.encode(frame) + b"\n\n")
        assert spoken.translator.frame(b"data: [DONE]\n\n").endswith(b"\n\n")
        spoken.translator.whole(msgspec.json.encode(frames[0] if frames else {}))
