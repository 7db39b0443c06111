"""A block that moved is found as its plain definition finds it, whatever words stand twice."""

from hypothesis import given
from hypothesis import strategies as st

from cache.difference import Difference, is_same_order
from cache.reading import Content

WORDS = st.builds(
    Content, st.sampled_from(["a", "b", "c", "d1"]), st.sampled_from(["", "in", "on", "to"]), st.just("w")
)
TEXTS = st.lists(WORDS, min_size=1, max_size=7)


def moved(cached: list[Content], new: list[Content]) -> bool:
    """Try every block of the one at every place of the other."""
    for head, leader in enumerate(cached):
        if leader.preposition not in {"in", "on", "at", "during", "for", "of", "within"}:
            continue
        for end in range(head + 1, len(cached) + 1):
            block, rest = stems(cached[head:end]), stems(cached[:head] + cached[end:])
            for at, one in enumerate(new):
                is_moved = stems(new) == rest[:at] + block + rest[at:] and at <= len(rest)
                is_numbered = not one.preposition and "d1" in block
                if is_moved and (is_numbered or one.preposition == leader.preposition):
                    return True
    return False


def stems(words: list[Content]) -> list[str]:
    return [one.stem for one in words]


@given(TEXTS, st.data())
def test_one_moved_block_keeps_the_order_and_nothing_else_does(cached: list[Content], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(cached) - 1))
    end = data.draw(st.integers(start + 1, len(cached)))
    rest = cached[:start] + cached[end:]
    at = data.draw(st.integers(0, len(rest)))
    new = data.draw(st.just(rest[:at] + cached[start:end] + rest[at:]) | st.permutations(cached) | TEXTS)
    difference = Difference((), (), tuple(cached), tuple(new))
    expected = stems(cached) == stems(new) or moved(cached, new) or moved(new, cached)
    assert is_same_order(difference) == expected
