"""What the two bundled models achieve on generated questions, asked in process, greedily, without the gateway."""

import random
from collections.abc import Sequence

from backends.bundled.evaluate import HERE, MODELS, Model
from backends.bundled.tasks import Family, Question, Split, draw, families, grade
from router.outcomes import Outcome


def bundled_questions(split: Split, per_family: int, seed: int = 0) -> list[Question]:
    """Draw up to `per_family` distinct questions of every family (some have fewer), the same ones every time."""
    return [question for family in families() for question in _distinct(family, split, per_family, seed)]


def ask_bundled(questions: Sequence[Question], *, declared: bool = False) -> list[Outcome]:
    """Return what both models get right and in how many tokens, in order; the family is the group.

    With `declared`, a model counts as right on the families that it is meant for, without being asked.
    """
    able = {family.name: family for family in families()}
    tokens: dict[str, list[int | None]] = {tier: [None] * len(questions) for tier in MODELS}
    right = {tier: [bool(getattr(able[one.family], tier)) for one in questions] for tier in MODELS}
    for tier, directory in ({} if declared else MODELS).items():
        model = Model(HERE / directory)
        answers = model.answer([[{"role": "user", "content": one.prompt}] for one in questions])
        tokens[tier] = [model.count_tokens(answer) for answer in answers]
        right[tier] = [grade(one, answer) for one, answer in zip(questions, answers, strict=True)]
    return [
        Outcome(one.prompt, float(small), float(large), one.family, None, *lengths)
        for one, small, large, lengths in zip(
            questions, right["small"], right["large"], zip(tokens["small"], tokens["large"], strict=True), strict=True
        )
    ]


def _distinct(family: Family, split: Split, wanted: int, seed: int) -> list[Question]:
    rng = random.Random(f"{family.name}/{split}/router/{seed}")
    drawn = (draw(family.name, rng, split) for _ in range(4 * wanted))
    return list({one.prompt: one for one in drawn}.values())[:wanted]
