"""Whatever a client sends arrives upstream as it was sent, but for the few fields that are ours to change."""

import json
from typing import Any

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from core.chat import LIMIT_FIELDS, OWN_FIELDS, REFUSED_FIELDS, parse_chat_request

KNOWN = {"model", "messages", "stream", "stream_options", "n", "user", "tools", "functions", "response_format"}
NAMES = st.text(max_size=8).filter(
    lambda name: name not in KNOWN | {*LIMIT_FIELDS, *OWN_FIELDS, *REFUSED_FIELDS} and name.isprintable()
)
NUMBERS = st.sampled_from(["0", "-0", "1.0", "1.50", "1e3", "1E+3", "0.1", "12345678901234567890123", "-0.0", "1e400"])
STRINGS = st.text(max_size=8).filter(lambda text: not any("\ud800" <= letter <= "\udfff" for letter in text))
ENCODED_STRINGS = st.builds(lambda text, ascii_only: json.dumps(text, ensure_ascii=ascii_only), STRINGS, st.booleans())
SPACE = st.sampled_from(["", " ", "\n\t"])
VALUES: st.SearchStrategy[str] = st.recursive(
    NUMBERS | ENCODED_STRINGS | st.sampled_from(["true", "false", "null"]),
    lambda inner: (
        st.builds(lambda items, gap: "[" + ("," + gap).join(items) + "]", st.lists(inner, max_size=3), SPACE)
        | st.builds(
            lambda pairs, gap: "{" + ",".join(f"{name}{gap}:{value}" for name, value in pairs) + "}",
            st.lists(st.tuples(ENCODED_STRINGS, inner), max_size=3),
            SPACE,
        )
    ),
    max_leaves=6,
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=6, unique_by=lambda pair: pair[0])
MESSAGES = '[ {"role":"user", "content":"caf\\u00e9 1.50"} ]'
BASE = [("model", '"auto"'), ("messages", MESSAGES)]


def encode(pairs: list[tuple[str, str]], gap: str) -> bytes:
    return ("{" + f",{gap}".join(f"{json.dumps(name)}:{gap}{value}" for name, value in pairs) + "}").encode()


def raw_fields(body: bytes) -> list[tuple[str, str]]:
    """Read the top level by hand: names in order, each with the text of its value."""
    text = body.decode()
    pairs, at = [], 1
    decoder = json.JSONDecoder()
    while text[at] != "}":
        name, at = decoder.raw_decode(text, at + (text[at] == ","))
        start = at + 1
        _, at = decoder.raw_decode(text, start)
        pairs.append((name, text[start:at]))
    return pairs


@settings(deadline=None)
@given(st.permutations(BASE).flatmap(lambda base: FIELDS.map(lambda more: [*base, *more])), SPACE, st.randoms())
def test_unknown_fields_their_order_and_the_text_of_numbers_survive(
    pairs: list[tuple[str, str]], gap: str, chance: Any
) -> None:
    chance.shuffle(pairs)
    body = parse_chat_request(encode(pairs, gap), "req_1").upstream_body("real", ask_usage=True, max_tokens=None)
    assert raw_fields(body) == [(name, '"real"' if name == "model" else value) for name, value in pairs]


@settings(deadline=None)
@given(
    FIELDS,
    st.sampled_from([None, "true", "false", "null"]),
    st.sampled_from([None, "null", "{}", '{"include_usage":false,"x":1}', '{"include_usage":true}']),
    st.sets(st.sampled_from(LIMIT_FIELDS)),
    st.booleans(),
    st.none() | st.integers(1, 10**6),
)
def test_only_model_stream_options_and_output_limits_differ(
    more: list[tuple[str, str]],
    stream: str | None,
    options: str | None,
    limits: set[str],
    ask_usage: bool,
    cap: int | None,
) -> None:
    pairs = [*BASE, *more, *((name, "9000") for name in sorted(limits))]
    pairs += [(name, value) for name, value in (("stream", stream), ("stream_options", options)) if value is not None]
    request = parse_chat_request(encode(pairs, ""), "req_1")
    before, after = dict(pairs), dict(raw_fields(request.upstream_body("real", ask_usage=ask_usage, max_tokens=cap)))
    changed = {name for name in before | after if before.get(name) != after.get(name)}
    allowed = {"model"}
    if cap is not None:
        allowed |= limits or {"max_tokens"}
        assert all(after[name] == str(cap) for name in limits or {"max_tokens"})
    if ask_usage and stream == "true":
        allowed |= {"stream_options"}
        assert json.loads(after["stream_options"])["include_usage"] is True
    assert {"model"} <= changed <= allowed


@settings(deadline=None)
@given(st.sampled_from(OWN_FIELDS), VALUES, FIELDS)
def test_our_own_fields_never_reach_an_upstream(name: str, value: str, more: list[tuple[str, str]]) -> None:
    assume(name not in dict(more))
    body = parse_chat_request(encode([*BASE, (name, value), *more], ""), "req_1").upstream_body(
        "real", ask_usage=True, max_tokens=None
    )
    assert [field for field, _ in raw_fields(body)] == ["model", "messages", *(field for field, _ in more)]
