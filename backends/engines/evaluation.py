"""What an evaluation says of a model: accuracy by family, agreement with another model, speed and cost.

An evaluation is of these weights, on this engine's version, at this precision; a file keeps one for each such key.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import mean, quantiles

import msgspec

from backends.engines.suite import Suite, Task, agree, is_right

MAX_KEPT = 20
RATIO_DIGITS = 4


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer, or None as `text` where the model gave none; times are milliseconds since the question was sent."""

    text: str | None
    ttft_ms: float = 0.0
    output_tokens: int = 0
    cost_nano_usd: int = 0


@dataclass(frozen=True, slots=True)
class Run:
    """What one model did with a suite: an answer for each task, in its order, and how long all of it took."""

    answers: tuple[Answered, ...]
    seconds: float


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which model on which engine; the digest is None for weights that the gateway does not hold."""

    name: str
    weights_digest: str | None
    engine: str
    precision: str


class FamilyScore(msgspec.Struct, frozen=True, kw_only=True):
    """One family; accuracies are right answers / tasks with an answer (None: there is none), agreement is over all."""

    family: str
    tasks: int
    accuracy: float | None
    reference_accuracy: float | None
    agreement: float


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast and at what price answers came; tokens/s are of all answers together, at `concurrency` questions."""

    ttft_ms_p50: float
    ttft_ms_p95: float
    output_tokens_per_s: float
    mean_cost_nano_usd: float
    unanswered: int


class Thresholds(msgspec.Struct, frozen=True):
    """What has to be reached; None asks for nothing."""

    accuracy: float | None = None
    agreement: float | None = None


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation of a model (`subject`) beside another (`reference`); it holds no question and no answer."""

    subject: Identity
    reference: Identity
    suite: str
    suite_digest: str
    evaluated_at: datetime
    concurrency: int
    through: str
    tasks: int
    families: list[FamilyScore]
    accuracy: float | None
    reference_accuracy: float | None
    agreement: float
    speed: Speed
    reference_speed: Speed
    least: Thresholds

    @property
    def shortfalls(self) -> list[str]:
        """Say what does not reach its threshold."""
        found = []
        if self.least.accuracy is not None and self.accuracy is None:
            found.append("accuracy is unknown: no task has an answer")
        elif self.least.accuracy is not None and (self.accuracy or 0) < self.least.accuracy:
            found.append(f"accuracy {self.accuracy} is below {self.least.accuracy}")
        if self.least.agreement is not None and self.agreement < self.least.agreement:
            found.append(f"agreement {self.agreement} is below {self.least.agreement}")
        return found

    @property
    def passed(self) -> bool | None:
        """Whether every threshold was reached; None where none was asked for."""
        if self.least == Thresholds():
            return None
        return not self.shortfalls

    @property
    def key(self) -> tuple[str | None, str, str]:
        """Return weights, engine and precision, for which this counts."""
        return (self.subject.weights_digest, self.subject.engine, self.subject.precision)


class EvaluationFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The evaluations of one recipe, newest first, one for each key."""

    evaluations: list[Evaluation] = []

    def with_newest(self, one: Evaluation) -> "EvaluationFile":
        """Return the file with `one` first, in place of what had its key."""
        others = [kept for kept in self.evaluations if kept.key != one.key]
        return EvaluationFile([one, *others][:MAX_KEPT])


def scores(suite: Suite, subject: Run, reference: Run) -> list[FamilyScore]:
    """Score every family, in the order of the suite."""
    by_family: dict[str, list[tuple[Task, Answered, Answered]]] = defaultdict(list)
    for task, one, other in zip(suite.tasks, subject.answers, reference.answers, strict=True):
        by_family[task.family].append((task, one, other))
    return [_score(family, rows) for family, rows in by_family.items()]


def accuracy(tasks: Sequence[Task], answers: Sequence[Answered]) -> float | None:
    """Return right answers / tasks that have one; no answer is a wrong one."""
    known = [
        is_right(task, one.text or "") for task, one in zip(tasks, answers, strict=True) if task.answer is not None
    ]
    return round(mean(map(bool, known)), RATIO_DIGITS) if known else None


def agreement(tasks: Sequence[Task], ones: Sequence[Answered], others: Sequence[Answered]) -> float:
    """Return the share of tasks that both answered alike."""
    same = [
        one.text is not None and other.text is not None and agree(task, one.text, other.text)
        for task, one, other in zip(tasks, ones, others, strict=True)
    ]
    return round(mean(same), RATIO_DIGITS)


def speed(run: Run) -> Speed:
    """Reduce a run to its speed; times are of the answers that came."""
    came = [one for one in run.answers if one.text is not None]
    ttft = sorted(one.ttft_ms for one in came)
    p50, p95 = (
        (quantiles(ttft, n=20, method="inclusive")[at] for at in (9, 18)) if len(ttft) > 1 else (ttft * 2 or [0, 0])
    )
    return Speed(
        ttft_ms_p50=round(p50, 1),
        ttft_ms_p95=round(p95, 1),
        output_tokens_per_s=round(sum(one.output_tokens for one in came) / max(run.seconds, 1e-9), 1),
        mean_cost_nano_usd=round(mean(one.cost_nano_usd for one in came), 1) if came else 0.0,
        unanswered=len(run.answers) - len(came),
    )


def _score(family: str, rows: Sequence[tuple[Task, Answered, Answered]]) -> FamilyScore:
    tasks, ones, others = [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows]
    return FamilyScore(
        family=family,
        tasks=len(rows),
        accuracy=accuracy(tasks, ones),
        reference_accuracy=accuracy(tasks, others),
        agreement=agreement(tasks, ones, others),
    )
