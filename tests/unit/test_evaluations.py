"""Evaluations: scores from answers, what is kept for which weights, and what may take traffic."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from backends.engines.evaluation import (
    Answered,
    Evaluation,
    EvaluationFile,
    Identity,
    Run,
    Speed,
    Thresholds,
    scores,
    speed,
)
from backends.engines.kinds import engine_version
from backends.engines.recipes import Recipe, load_recipe
from backends.engines.suite import Suite, Task
from backends.engines.weights_digest import recipe_digest
from core.errors import ConfigurationError
from gateway.hosting.evaluations import (
    QUANTISED,
    check_evaluated,
    evaluation_file,
    evaluation_of,
    keep_evaluation,
    read_evaluations,
)
from policies.safe_yaml import load_yaml

RECIPE = """
engine: openvino
weights: weights
precision: int4
model: m
memory_bytes: 1000000
context_tokens: 1024
max_output_tokens: 256
price: {input_usd_per_m: "1", output_usd_per_m: "1"}
"""
TASKS = (Task("1", answer="a", family="x"), Task("2", answer="b", family="x"), Task("3", family="y"))
FAST = Speed(ttft_ms_p50=1, ttft_ms_p95=1, output_tokens_per_s=1, mean_cost_nano_usd=1, unanswered=0)


def an_evaluation(digest: str | None = "d", engine: str = "e 1", **changed: object) -> Evaluation:
    one = Evaluation(
        subject=Identity(name="s", weights_digest=digest, engine=engine, precision="int4"),
        reference=Identity(name="r", weights_digest="r", engine="e", precision="fp16"),
        suite="s.jsonl",
        suite_digest="sha256:0",
        evaluated_at=datetime(2026, 1, 1, tzinfo=UTC),
        concurrency=8,
        through="engine",
        tasks=3,
        families=[],
        accuracy=0.9,
        reference_accuracy=0.95,
        agreement=0.92,
        speed=FAST,
        reference_speed=FAST,
        least=Thresholds(),
    )
    return msgspec.structs.replace(one, **changed)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """A recipe of weights that were quantised here."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "openvino_model.bin").write_bytes(b"weights")
    (tmp_path / "weights" / QUANTISED).write_text("{}")
    (tmp_path / "mine.yaml").write_text(RECIPE)
    return load_recipe(tmp_path / "mine.yaml", load_yaml)


def test_families_are_scored_apart_and_no_answer_is_a_wrong_one() -> None:
    own = Run((Answered("a"), Answered(None), Answered("same")), 1.0)
    other = Run((Answered("a"), Answered("b"), Answered("same")), 1.0)
    x, y = scores(Suite("s", b"", TASKS), own, other)
    assert (x.family, x.tasks, x.accuracy, x.reference_accuracy, x.agreement) == ("x", 2, 0.5, 1.0, 0.5)
    assert (y.family, y.accuracy, y.reference_accuracy, y.agreement) == ("y", None, None, 1.0)


def test_speed_is_of_the_answers_that_came() -> None:
    answers = (Answered("a", 10.0, 5, 100), Answered("b", 30.0, 15, 300), Answered(None))
    found = speed(Run(answers, 2.0))
    assert found == Speed(
        ttft_ms_p50=20.0, ttft_ms_p95=29.0, output_tokens_per_s=10.0, mean_cost_nano_usd=200.0, unanswered=1
    )


def test_an_evaluation_passes_when_every_threshold_is_reached() -> None:
    assert an_evaluation().passed is None
    assert an_evaluation(least=Thresholds(0.9, 0.92)).passed is True
    missed = an_evaluation(least=Thresholds(0.95, 0.95))
    assert missed.passed is False
    assert missed.shortfalls == ["accuracy 0.9 is below 0.95", "agreement 0.92 is below 0.95"]
    unknown = an_evaluation(accuracy=None, least=Thresholds(accuracy=0.1))
    assert unknown.shortfalls == ["accuracy is unknown: no task has an answer"]


def test_one_evaluation_is_kept_for_each_weights_engine_and_precision(tmp_path: Path) -> None:
    file = tmp_path / "kept" / "m.json"
    for one in (an_evaluation(), an_evaluation(engine="e 2"), an_evaluation(agreement=0.5)):
        keep_evaluation(file, one)
    kept = read_evaluations(file).evaluations
    assert [(one.subject.engine, one.agreement) for one in kept] == [("e 1", 0.5), ("e 2", 0.92)]
    assert len(EvaluationFile().with_newest(an_evaluation()).evaluations) == 1


def test_a_file_of_evaluations_that_cannot_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(ConfigurationError, match="run `headgate models eval` again"):
        read_evaluations(tmp_path / "m.json")


def test_evaluations_lie_beside_an_own_recipe_and_beside_the_state_for_a_shipped_one(
    recipe: Recipe, tmp_path: Path
) -> None:
    assert evaluation_file(recipe, tmp_path / "var") == tmp_path / "mine.evaluations.json"
    shipped = load_recipe("bundled-large", load_yaml)
    assert evaluation_file(shipped, tmp_path) == tmp_path / "evaluations" / "bundled-large.json"


def test_other_weights_have_no_evaluation(recipe: Recipe, tmp_path: Path) -> None:
    keep_evaluation(evaluation_file(recipe, tmp_path), an_evaluation(recipe_digest(recipe)))
    assert evaluation_of(recipe, tmp_path) is not None
    (recipe.spec.model_dir / "openvino_model.bin").write_bytes(b"others")
    assert evaluation_of(recipe, tmp_path) is None


def test_a_model_quantised_here_takes_traffic_only_with_a_passed_evaluation(recipe: Recipe, tmp_path: Path) -> None:
    file, digest, engine = evaluation_file(recipe, tmp_path), recipe_digest(recipe), engine_version("openvino")
    with pytest.raises(ConfigurationError, match="nothing says that these weights were evaluated"):
        check_evaluated(recipe, tmp_path)
    keep_evaluation(file, an_evaluation(digest, engine))
    with pytest.raises(ConfigurationError, match="evaluated against thresholds"):
        check_evaluated(recipe, tmp_path)
    keep_evaluation(file, an_evaluation(digest, engine, least=Thresholds(agreement=0.99)))
    with pytest.raises(ConfigurationError, match=r"did not pass its evaluation: agreement 0.92 is below 0.99"):
        check_evaluated(recipe, tmp_path)
    check_evaluated(replace(recipe, allow_unevaluated=True), tmp_path)
    keep_evaluation(file, an_evaluation(digest, engine, least=Thresholds(agreement=0.9)))
    check_evaluated(recipe, tmp_path)


def test_an_evaluation_on_another_engine_version_counts_with_a_warning(
    recipe: Recipe, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept = an_evaluation(recipe_digest(recipe), "openvino-genai 1", least=Thresholds(agreement=0.9))
    keep_evaluation(evaluation_file(recipe, tmp_path), kept)
    check_evaluated(recipe, tmp_path)
    assert "evaluated on another version of the engine" in caplog.text


def test_weights_that_were_not_quantised_here_need_no_evaluation(recipe: Recipe, tmp_path: Path) -> None:
    (recipe.spec.model_dir / QUANTISED).unlink()
    check_evaluated(recipe, tmp_path)
