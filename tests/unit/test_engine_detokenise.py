"""Detokenising piece by piece: whole characters only, equal to decoding at once, stop strings never shown."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.engines.detokenise import ByteDetokeniser, Detokeniser, StopStrings, WindowDetokeniser, byte_table

BYTES = {number: bytes([number]) for number in range(256)}
END = 256


def decode(ids: Sequence[int]) -> str:
    return bytes(number for number in ids if number != END).decode("utf-8", "replace")


def both() -> list[Detokeniser]:
    return [ByteDetokeniser(BYTES), WindowDetokeniser(decode)]


@given(st.text(max_size=40))
def test_pieces_join_to_the_whole_text(text: str) -> None:
    for detokeniser in both():
        assert "".join(detokeniser.push([number]) for number in text.encode()) + detokeniser.flush() == text


@pytest.mark.parametrize("detokeniser", both())
def test_a_character_is_held_back_until_its_last_byte(detokeniser: Detokeniser) -> None:
    first, second, third = "你".encode()
    assert detokeniser.push([65, first]) + detokeniser.push([second]) in ("A", "")
    assert detokeniser.push([third]).endswith("你")
    assert detokeniser.flush() == ""


@pytest.mark.parametrize("detokeniser", both())
def test_an_unfinished_character_ends_as_a_replacement(detokeniser: Detokeniser) -> None:
    shown = detokeniser.push(["é".encode()[0]])
    assert shown + detokeniser.flush() == "�"


def test_special_tokens_are_silent() -> None:
    assert ByteDetokeniser(BYTES).push([72, END, 105]) == "Hi"


def test_the_byte_table_leaves_special_tokens_out() -> None:
    vocabulary = {bytes([number]): number for number in range(128)} | {b"<end>": END}
    table = byte_table(vocabulary, decode, lambda ids: [decode([number]) for number in ids], list(b"a , b"))
    assert table is not None
    assert table[97] == b"a"
    assert END not in table


def test_a_tokenizer_that_cleans_up_spaces_gets_no_byte_table() -> None:
    vocabulary = {bytes([number]): number for number in range(128)}

    def cleaning(ids: Sequence[int]) -> str:
        return decode(ids).replace(" ,", ",")

    assert byte_table(vocabulary, cleaning, lambda ids: [cleaning([n]) for n in ids], list(b"a , b")) is None


def test_a_tokenizer_with_marked_spaces_gets_no_byte_table() -> None:
    def marked(ids: Sequence[int]) -> str:
        return "".join(" x" for _ in ids).lstrip()

    assert byte_table({"▁x".encode(): 0}, marked, lambda ids: [marked([n]) for n in ids], [0]) is None


@given(st.lists(st.text("abc", max_size=3), max_size=12), st.lists(st.text("abc", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string_wherever_it_is_cut(pieces: list[str], stops: list[str]) -> None:
    matcher = StopStrings(stops)
    shown = ""
    for piece in pieces:
        shown += matcher.push(piece)
        if matcher.found:
            break
    shown += matcher.flush()
    whole = "".join(pieces)
    assert not any(stop in shown for stop in stops)
    assert matcher.found == any(stop in whole for stop in stops)
    assert whole.startswith(shown)
    if not matcher.found:
        assert shown == whole


def test_the_beginning_of_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["END"])
    assert matcher.push("the E") == "the "
    assert matcher.push("N") == ""
    assert matcher.push("X") == "ENX"
