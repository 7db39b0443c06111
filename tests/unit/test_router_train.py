"""Training on made-up outcomes, and scoring files with what came out."""

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.errors import ConfigurationError
from router.complexity import PairModel
from router.evaluate import auc
from router.features import text_views
from router.fitting import Recipe, build_table
from router.outcomes import Outcome, read_outcomes
from router.scoring import Vectors, calibrate, score_file, score_texts, small_suffices
from router.train import Trained, train_pair
from router.weights import save_pair

SUBJECTS = ("roses", "tulips", "oaks", "pines", "ferns", "mosses", "lilies", "daisies")
ENCODER = "test:00000000"


def embed(texts: Sequence[str]) -> Vectors:
    """Hash words into 32 dimensions, so that texts with the same words are close."""
    vectors = np.zeros((len(texts), 32), np.float32)
    for row, text in zip(vectors, texts, strict=True):
        for word in text.lower().split():
            row[zlib.crc32(word.encode()) % 32] += 1.0
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms == 0, 1.0, norms), np.float32)


def rows() -> list[Outcome]:
    """Proofs need the large model nine times in ten, greetings one time in ten, whatever the subject."""
    rng = np.random.default_rng(5)
    made = []
    for number in range(480):
        subject = SUBJECTS[number % len(SUBJECTS)]
        proof = number % 3 == 0
        query = f"Prove a theorem about {subject} number {number}" if proof else f"Say hello to {subject} {number}"
        needs_large = rng.random() < (0.9 if proof else 0.1)
        made.append(Outcome(query, 0.0 if needs_large else 1.0, 1.0, group=subject))
    return made


def train() -> Trained:
    recipe = Recipe(centroids=16, vector_lift=4.0)
    return train_pair(rows(), embed, pair="mine", small="s", large="l", encoder=ENCODER, recipe=recipe)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train()


@pytest.fixture
def directory(trained: Trained, tmp_path: Path) -> Path:
    save_pair(trained.weights, trained.manifest, tmp_path)
    return tmp_path


def test_what_separates_hard_from_easy_is_learnt_on_subjects_never_seen(trained: Trained) -> None:
    assert auc(trained.held_out, small_suffices(rows())) > 0.8
    assert trained.manifest.metrics["held_out_ece"] < 0.1


def test_training_twice_gives_the_same_weights(trained: Trained, tmp_path: Path) -> None:
    again = train()
    first = save_pair(trained.weights, trained.manifest, tmp_path / "a")
    second = save_pair(again.weights, again.manifest, tmp_path / "b")
    assert first.weights_sha256 == second.weights_sha256


def test_the_loaded_model_ranks_as_trained(directory: Path) -> None:
    model = PairModel.load("mine", ENCODER, directory=directory)
    easy, hard = score_texts(model, ["Say hello to birches 7", "Prove a theorem about birches number 7"], embed)
    assert easy > 0.7
    assert hard < 0.4


def test_answers_lengths_are_learnt_and_survive_the_file(tmp_path: Path) -> None:
    measured = [
        replace(row, small_tokens=80 if "Prove" in row.query else 5, large_tokens=200 if "Prove" in row.query else 10)
        for row in rows()
    ]
    made = train_pair(measured, embed, pair="long", small="s", large="l", encoder=ENCODER, recipe=Recipe(centroids=16))
    save_pair(made.weights, made.manifest, tmp_path)
    model = PairModel.load("long", ENCODER, directory=tmp_path)
    proof = model.score("Prove a theorem about birches number 7", None).output_tokens
    hello = model.score("Say hello to birches 7", None).output_tokens
    assert proof == pytest.approx((80, 200), rel=0.3)
    assert hello == pytest.approx((5, 10), rel=0.3)
    assert made.manifest.metrics["held_out_small_tokens_factor"] < 1.3


def test_without_lengths_none_are_expected(trained: Trained) -> None:
    assert PairModel(trained.weights, trained.manifest).score("Say hello", None).output_tokens is None


def test_what_is_learnt_keeps_its_least_weight_where_held_out_groups_do_not_bear_it_out() -> None:
    rng = np.random.default_rng(3)
    noise = [Outcome(row.query, float(rng.random() < 0.5), 1.0, group=row.group) for row in rows()]
    slopes = []
    for least in (0.0, 0.15):
        recipe = Recipe(centroids=16, least_slope=least)
        made = train_pair(noise, embed, pair="p", small="s", large="l", encoder=ENCODER, recipe=recipe)
        slopes.append(made.weights.both.slope)
    assert slopes[0] < 0.15
    assert slopes[1] == 0.15


def test_a_group_with_many_rows_counts_as_much_as_one_with_fewer() -> None:
    table = build_table(rows(), embed, Recipe(centroids=16, group_rows=30))
    assert np.bincount(table.group, table.weight) == pytest.approx(np.full(len(SUBJECTS), 30.0))


def test_which_group_is_easy_is_not_what_the_embedding_learns() -> None:
    easy = [Outcome(f"tell me about roses {n}", float(n % 10 != 0), 1.0, group="roses") for n in range(100)]
    hard = [Outcome(f"tell me about oaks {n}", float(n % 10 == 0), 1.0, group="oaks") for n in range(100)]
    roses, oaks = embed(["tell me about roses 7", "tell me about oaks 7"])
    gaps = []
    for spread in (0.0, 4.0):
        recipe = Recipe(centroids=4, group_spread=spread)
        vector = train_pair(
            [*easy, *hard], embed, pair="p", small="s", large="l", encoder=ENCODER, recipe=recipe
        ).weights.vector
        gaps.append(vector.score(roses) - vector.score(oaks))
    assert abs(gaps[1]) < 0.5 * gaps[0]


def test_training_remembers_how_far_its_prompts_went(trained: Trained) -> None:
    known, beyond = (trained.weights.reach.is_beyond(text_views(text).extent) for text in ("oaks 479", "oaks 479000"))
    assert not known
    assert beyond


def test_training_needs_both_kinds_of_outcome() -> None:
    alike = [Outcome(f"q{number}", 1.0, 1.0, group=str(number)) for number in range(20)]
    with pytest.raises(ValueError, match="need the large model"):
        train_pair(alike, embed, pair="p", small="s", large="l", encoder=ENCODER)


def test_scoring_a_file_keeps_order_and_fields(directory: Path) -> None:
    lines = [{"id": n, "query": f"Say hello to {n}", "more": {"x": [1, None]}} for n in range(600)]
    source, out = directory / "in.jsonl", directory / "out.jsonl"
    source.write_bytes(b"\n".join(map(msgspec.json.encode, lines)))
    assert score_file(source, out, embed, "mine", encoder=ENCODER, directory=directory) == 600
    scored = [msgspec.json.decode(line) for line in out.read_bytes().splitlines()]
    assert [{key: line[key] for key in ("id", "query", "more")} for line in scored] == lines
    assert all(0.0 < line["p_small_suffices"] < 1.0 for line in scored)


@pytest.mark.parametrize("bad", ["not json", "[]", '{"text": "x"}', '{"query": 3}'])
def test_a_bad_line_is_named_and_nothing_is_written(directory: Path, bad: str) -> None:
    source, out = directory / "in.jsonl", directory / "out.jsonl"
    source.write_text('{"query": "fine"}\n' + bad + "\n")
    with pytest.raises(ConfigurationError, match=r"in\.jsonl: line 2"):
        score_file(source, out, embed, "mine", directory=directory)
    assert sorted(path.name for path in directory.glob("out*")) == []


def test_a_missing_file_is_named(directory: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"absent\.jsonl: cannot be read"):
        score_file(directory / "absent.jsonl", directory / "out.jsonl", embed, "mine", directory=directory)


@pytest.mark.parametrize(
    "bad", ['{"query": "x", "small_score": 1}', '{"query": "x", "small_score": 2, "large_score": 1}']
)
def test_a_bad_outcome_is_named(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "outcomes.jsonl"
    path.write_text(bad)
    with pytest.raises(ConfigurationError, match=r"outcomes\.jsonl: line 1"):
        read_outcomes(path)


def test_calibration_follows_the_outcomes_and_changes_the_scores(directory: Path) -> None:
    rng = np.random.default_rng(8)
    outcomes = directory / "outcomes.jsonl"
    easy = [
        {"query": f"Say hello to {n}", "small_score": int(rng.random() < 0.3), "large_score": 1} for n in range(200)
    ]
    outcomes.write_bytes(b"\n".join(map(msgspec.json.encode, easy)))
    fitted = calibrate("mine", outcomes, directory / "c.json", embed, encoder=ENCODER, directory=directory)
    assert fitted.brier_after < fitted.brier_before
    source = directory / "in.jsonl"
    source.write_text('{"query": "Say hello to 3"}')
    plain, calibrated = directory / "plain.jsonl", directory / "calibrated.jsonl"
    score_file(source, plain, embed, "mine", directory=directory)
    score_file(source, calibrated, embed, "mine", directory / "c.json", directory=directory)
    before, after = (msgspec.json.decode(path.read_bytes())["p_small_suffices"] for path in (plain, calibrated))
    assert after < before - 0.2
