"""The weight sets that ship."""

import hashlib

import pytest

from router.complexity import PairModel
from router.weights import WEIGHTS_DIRECTORY

ENCODER = "all-MiniLM-L6-v2:53aa5117"


@pytest.mark.parametrize("pair", ["general", "bundled"])
def test_a_shipped_set_loads_for_the_shipped_encoder(pair: str) -> None:
    model = PairModel.load(pair, ENCODER)
    assert model.manifest.pair == pair
    assert model.manifest.rows > 1_000


def test_the_bundled_set_was_trained_on_the_outcomes_beside_it() -> None:
    manifest = PairModel.load("bundled").manifest
    for name, digest in manifest.data_sha256.items():
        assert hashlib.sha256((WEIGHTS_DIRECTORY / name).read_bytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("text", "small"),
    [
        ("Sort these numbers: 7 3 9", True),
        ("What is 4 plus 3?", True),
        ("Repeat after me: red fox", True),
        ("What is the capital of France?", True),
        ("What is 48 plus 37?", False),
        ("Please add 61 and 25 for me", False),
        ("Sort 9 4 2 7 5 1 3 8 6 0 from smallest to largest", False),
    ],
)
def test_the_bundled_set_knows_easy_from_hard_by_text_alone(text: str, small: bool) -> None:
    assert (PairModel.load("bundled").score(text, None).p_small_suffices >= 0.5) is small


def test_the_general_set_stays_near_its_base_rate() -> None:
    model = PairModel.load("general")
    p = [
        model.score(text, None).p_small_suffices for text in ("hi", "What is the capital of France?", "Solve x + 1 = 3")
    ]
    assert all(abs(one - model.manifest.base_rate) < 0.2 for one in p)


def test_the_bundled_set_expects_longer_answers_to_longer_lists() -> None:
    model = PairModel.load("bundled")
    short, long = (model.score(text, None).output_tokens for text in ("Sort 3 1 2", "Sort 9 4 2 7 5 1 3 8 6 0"))
    assert short is not None
    assert long is not None
    assert short[1] + 4 < long[1] < 40


def test_the_general_set_knows_no_lengths() -> None:
    assert PairModel.load("general").score("What is the capital of France?", None).output_tokens is None
