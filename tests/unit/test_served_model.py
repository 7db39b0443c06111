"""Which names in an answer mean the model that was asked for."""

import pytest

from backends.served_model import ModelCheck


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        ("gpt-4o", "gpt-4o-2024-08-06"),
        ("gpt-4", "gpt-4-0613"),
        ("claude-latest", "claude-20250929"),
        ("Qwen/Qwen2.5-7B", "qwen2.5-7b"),
        ("m", None),
        ("m", ""),
        ("m", "alias-of-m"),
    ],
)
def test_dates_cases_owners_and_listed_names_are_the_same_model(asked: str, served: str | None) -> None:
    assert ModelCheck(frozenset({"alias-of-m"})).other(asked, served) is None


@pytest.mark.parametrize(
    ("asked", "served"), [("gpt-4o", "gpt-4o-mini"), ("gpt-4o-mini", "gpt-4o"), ("llama-70b", "llama-8b"), ("a", "b")]
)
def test_another_model_is_named(asked: str, served: str) -> None:
    assert ModelCheck().other(asked, served) == served
