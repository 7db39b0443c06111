"""Weight files and the classifier made from them."""

from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.chat import ChatRequest, parse_chat_request
from core.errors import ConfigurationError
from router.calibration import Calibration
from router.complexity import PairModel
from router.features import LEXICAL_NAMES, text_views
from router.weights import SENSE_LIMIT, load_pair, save_pair
from tests.weights import ENCODER, axis, manifest, weights

EXTENT = np.log1p(np.array([[4, 1], [8, 7]], np.float32))
"""Around the first centroid: up to four numbers in a list, of one digit each."""


def chat(text: str, role: str = "user") -> ChatRequest:
    body = {"model": "auto", "messages": [{"role": role, "content": text}]}
    return parse_chat_request(msgspec.json.encode(body), "req_test")


@pytest.fixture
def model(tmp_path: Path) -> PairModel:
    save_pair(weights(), manifest(), tmp_path)
    return PairModel.load("general", ENCODER, directory=tmp_path)


def test_weights_survive_their_file(tmp_path: Path) -> None:
    save_pair(weights(), manifest(), tmp_path)
    loaded, written = load_pair("general", ENCODER, tmp_path)
    np.testing.assert_array_equal(loaded.text.word_coef, weights().text.word_coef)
    assert (loaded.both, loaded.text_alone, loaded.base_rate) == (weights().both, weights().text_alone, 0.8)
    assert loaded.reach.nearest(axis(0)) == weights().reach.nearest(axis(0))
    assert len(written.weights_sha256) == 64


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    first = save_pair(weights(), manifest(), tmp_path / "a")
    second = save_pair(weights(), manifest(), tmp_path / "b")
    assert first == second


def test_a_foreign_encoder_is_refused(tmp_path: Path) -> None:
    save_pair(weights(), manifest(), tmp_path)
    with pytest.raises(ConfigurationError, match=r"trained on vectors of all-MiniLM.*but the encoder in use is other"):
        PairModel.load("general", "other:12345678", directory=tmp_path)


def test_a_runtime_variant_of_the_encoder_is_accepted(tmp_path: Path) -> None:
    save_pair(weights(), manifest(), tmp_path)
    model = PairModel.load("general", f"{ENCODER}:bf16", directory=tmp_path)
    assert model.manifest.encoder == ENCODER


def test_other_features_are_refused(tmp_path: Path) -> None:
    save_pair(weights(), msgspec.structs.replace(manifest(), features="0"), tmp_path)
    with pytest.raises(ConfigurationError, match="features version 0"):
        load_pair("general", ENCODER, tmp_path)


def test_a_damaged_weight_file_is_refused(tmp_path: Path) -> None:
    save_pair(weights(), manifest(), tmp_path)
    path = tmp_path / "general.npz"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(ConfigurationError, match="SHA-256 differs"):
        load_pair("general", ENCODER, tmp_path)


def test_an_unknown_pair_names_the_known_ones(tmp_path: Path) -> None:
    save_pair(weights(), manifest(), tmp_path)
    with pytest.raises(ConfigurationError, match="known pairs: general"):
        load_pair("mine", None, tmp_path)


def test_a_manifest_with_an_unknown_key_is_refused(tmp_path: Path) -> None:
    save_pair(weights(), manifest(), tmp_path)
    path = tmp_path / "general.json"
    path.write_bytes(path.read_bytes().replace(b"{", b'{"extra": 1,', 1))
    with pytest.raises(ConfigurationError, match="not a manifest"):
        load_pair("general", None, tmp_path)


async def test_a_hard_word_lowers_p_and_the_source_names_the_weights(model: PairModel) -> None:
    easy = await model.classify(chat("easy"), axis(0))
    hard = await model.classify(chat("hard"), axis(0))
    assert hard.p_small_suffices < easy.p_small_suffices
    assert easy.source == f"model:general@{model.manifest.weights_sha256[:8]}"


async def test_the_vector_counts_as_much_as_the_text(model: PairModel) -> None:
    near, other = model.score("easy", axis(0)), model.score("easy", axis(1))
    assert near.p_small_suffices == pytest.approx(1 / (1 + np.exp(-3.0)))
    assert other.p_small_suffices == pytest.approx(1 / (1 + np.exp(-1.0)))


def test_a_fixed_slope_counts_however_far_the_prompt_is(tmp_path: Path) -> None:
    sloped = np.zeros(len(LEXICAL_NAMES), np.float32)
    sloped[LEXICAL_NAMES.index("log_sentences")] = -0.05
    base = weights()
    save_pair(replace(base, text=replace(base.text, sense_coef=sloped)), manifest(), tmp_path)
    plain, sensed = PairModel(base, manifest()), PairModel.load("general", directory=tmp_path)
    text = "one. two. three."
    for vector in (axis(0), axis(3), None):
        before, after = (one.score(text, vector).p_small_suffices for one in (plain, sensed))
        shift = np.log(after / (1 - after)) - np.log(before / (1 - before))
        assert shift == pytest.approx(-0.05 * np.log(4), abs=1e-6)


def test_a_fixed_slope_counts_more_the_farther_the_training_data_are() -> None:
    sloped = np.zeros(len(LEXICAL_NAMES), np.float32)
    sloped[LEXICAL_NAMES.index("log_sentences")] = -0.01
    steep = replace(weights(), far_sense=3.0, text=replace(weights().text, sense_coef=sloped))
    views = text_views("one. two. three.")
    near, far = (steep.log_odds(views, axis(place))[0] - weights().log_odds(views, axis(place))[0] for place in (1, 3))
    assert near == pytest.approx(-0.01 * np.log(4), abs=1e-6)
    assert far == pytest.approx(4 * near)


@pytest.mark.parametrize("text", ["sort 1 2 3 4 5 6 7 8", "would you please add 1 and right at the end 1234567"])
def test_beyond_what_is_known_of_its_kind_a_prompt_is_not_likelier_easy_than_any(text: str) -> None:
    easy = "a kind word to you"
    model = PairModel(replace(weights(), reach=replace(weights().reach, extent=EXTENT)), manifest())
    plain, beyond, elsewhere = (model.score(*one) for one in ((easy, axis(0)), (text, axis(0)), (text, axis(1))))
    assert plain.p_small_suffices > 0.9
    assert beyond.p_small_suffices == pytest.approx(0.8)
    assert elsewhere == model.score(easy, axis(1))


def test_what_is_known_to_be_hard_is_not_raised_by_going_beyond() -> None:
    near_by = PairModel(replace(weights(), reach=replace(weights().reach, extent=EXTENT)), manifest())
    measured = PairModel(weights(), manifest())
    text = "would you please add 1 and right at the end 1234567"
    assert near_by.score(text, -axis(0)) == measured.score(text, -axis(0))


def test_a_long_number_before_a_prompt_takes_it_beyond_nothing() -> None:
    model = PairModel(replace(weights(), reach=replace(weights().reach, extent=EXTENT)), manifest())
    text = "please say a kind word to me"
    plain, headed = (model.score(one, axis(0)).p_small_suffices for one in (text, f"987654321 {text}"))
    assert headed == pytest.approx(plain)


def test_marks_of_reasoning_before_a_prompt_count_little(tmp_path: Path) -> None:
    sloped = np.zeros(len(LEXICAL_NAMES), np.float32)
    sloped[LEXICAL_NAMES.index("log_sentences")] = -5.0
    model = PairModel(replace(weights(), text=replace(weights().text, sense_coef=sloped)), manifest())
    plain, headed = (model.score(text, axis(0)).p_small_suffices for text in ("a b c d", "x. y. z. a b c d"))
    shift = np.log(headed / (1 - headed)) - np.log(plain / (1 - plain))
    assert shift == pytest.approx(-SENSE_LIMIT, abs=1e-6)


def test_far_from_the_training_data_marks_of_reasoning_before_a_prompt_count_no_more() -> None:
    sloped = np.zeros(len(LEXICAL_NAMES), np.float32)
    sloped[LEXICAL_NAMES.index("log_sentences")] = -5.0
    steep = replace(weights(), far_sense=3.0, text=replace(weights().text, sense_coef=sloped))
    plain, headed = (steep.log_odds(text_views(text), axis(3))[0] for text in ("a b c d", "x. y. z. a b c d"))
    assert headed - plain == pytest.approx(-SENSE_LIMIT, abs=1e-6)


def test_hard_words_before_an_easy_prompt_do_not_make_it_hard(model: PairModel) -> None:
    easy = "please say a kind word to me"
    plain, triggered = model.score(easy, axis(1)), model.score(f"hard hard {easy}", axis(1))
    assert triggered.p_small_suffices == pytest.approx(plain.p_small_suffices)


def test_the_vector_alone_draws_a_score_down_by_its_limit_at_most(tmp_path: Path) -> None:
    limited = replace(weights(), vector_limit=0.25)
    save_pair(limited, manifest(), tmp_path)
    model = PairModel.load("general", directory=tmp_path)
    assert model.score("easy", -axis(0)).p_small_suffices == pytest.approx(
        1 / (1 + np.exp(-(np.log(4) + 0.25 * (1.75 - np.log(4)))))
    )


def test_the_vector_alone_draws_a_score_up_by_its_lift_at_most(tmp_path: Path) -> None:
    save_pair(replace(weights(), vector_lift=0.25), manifest(), tmp_path)
    model = PairModel.load("general", directory=tmp_path)
    hard = weights().text.score(text_views("hard"))
    assert model.score("hard", axis(0)).p_small_suffices == pytest.approx(1 / (1 + np.exp(-(hard + 0.25))))


async def test_far_from_the_training_data_the_base_rate_prevails(model: PairModel) -> None:
    far = model.score("hard", axis(3))
    assert far.trust == 0.25
    assert far.p_small_suffices == pytest.approx(1 / (1 + np.exp(-(np.log(4) + 0.25 * (-1.0 - np.log(4))))))


async def test_without_a_vector_the_text_speaks_alone(model: PairModel) -> None:
    judged = await model.classify(chat("hard"), None)
    assert judged.source.endswith(";no_vector")
    assert judged.p_small_suffices == pytest.approx(1 / (1 + np.exp(1.0)))


@pytest.mark.parametrize("request_", [chat("", "user"), chat("42", "tool"), chat("x", "assistant")])
async def test_without_text_the_base_rate_is_told(model: PairModel, request_: ChatRequest) -> None:
    judged = await model.classify(request_, axis(0))
    assert judged.source == "prior:no_text"
    assert judged.p_small_suffices == pytest.approx(0.8)


async def test_a_cut_is_recorded(model: PairModel) -> None:
    judged = await model.classify(chat("word " * 1_000), axis(0))
    assert judged.source.endswith(";cut")
    assert judged.cut_chars == 3_000


async def test_equal_requests_are_judged_equally(model: PairModel) -> None:
    assert await model.classify(chat("easy"), axis(0)) == await model.classify(chat("easy"), axis(0))


async def test_a_calibration_moves_every_answer(tmp_path: Path) -> None:
    written = save_pair(weights(), manifest(), tmp_path)
    shift = Calibration("general", written.weights_sha256, 1.0, -1.0, 200, 0.2, 0.1)
    model = PairModel.load("general", ENCODER, directory=tmp_path, calibration=shift)
    judged = await model.classify(chat("easy"), axis(0))
    assert judged.p_small_suffices == pytest.approx(1 / (1 + np.exp(-2.0)))
    assert judged.source.endswith(";calibrated")


def test_a_vector_of_another_dimension_is_an_error(model: PairModel) -> None:
    with pytest.raises(ValueError, match="dim"):
        model.score("easy", np.ones(3, np.float32))
