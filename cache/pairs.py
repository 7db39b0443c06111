"""Generate labelled pairs of prompts from templates and vocabularies of our own, to train and calibrate the guard.

Lines of one group ask the same; lines of different groups, qualified lines and lines about something else do not.
Every pair names the classes of its prompts (family, slot and group), so that folds can keep classes apart.
"""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

FRAMES = Path(__file__).with_name("guard_data") / "frames.json"


class Family(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Questions about one kind of thing, `{x}`; a modifier or a qualifier makes it another question."""

    name: str
    slots: list[str]
    groups: list[list[str]]
    modifiers: list[str]
    qualifiers: list[str]


class Frames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All families, and words that change nothing (`fillers`)."""

    note: str
    families: list[Family]
    fillers: list[str]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two prompts, whether one answer serves both, what sets them apart, and their classes."""

    cached: str
    new: str
    is_same: bool
    category: str
    family: str
    class_cached: str
    class_new: str


def load_frames(path: Path = FRAMES) -> Frames:
    """Read templates and vocabularies.

    Raises:
        OSError: the file cannot be read.
        msgspec.ValidationError: it is not of this form.
    """
    return msgspec.json.decode(path.read_bytes(), type=Frames)


def generate_pairs(frames: Frames, seed: int, per_class: int = 4) -> Iterator[Pair]:
    """Yield pairs for every family, slot and group; the same seed gives the same pairs."""
    chance = random.Random(seed)  # noqa: S311 - training data, not a secret
    for family in frames.families:
        for slot in family.slots:
            for number in range(len(family.groups)):
                yield from _about(frames, family, slot, number, per_class, chance)


def _about(
    frames: Frames, family: Family, slot: str, number: int, per_class: int, chance: random.Random
) -> Iterator[Pair]:
    own = f"{family.name}/{slot}/{number}"
    lines = [line.replace("{x}", slot) for line in family.groups[number]]
    for _ in range(per_class):
        cached, new = chance.sample(lines, 2)
        yield Pair(cached, new, True, "paraphrase", family.name, own, own)
        other = chance.choice([at for at in range(len(family.groups)) if at != number])
        line = chance.choice(family.groups[other]).replace("{x}", slot)
        yield Pair(cached, line, False, "other_question", family.name, own, f"{family.name}/{slot}/{other}")
    cached, new = chance.choice(lines), chance.choice(lines)
    yield Pair(cached, _with_filler(new, chance.choice(frames.fillers)), True, "filler", family.name, own, own)
    qualifier = chance.choice(family.qualifiers)
    yield Pair(cached, _qualified(new, qualifier), False, "qualifier", family.name, own, f"{own}/{qualifier}")
    if family.modifiers:
        modifier = chance.choice(family.modifiers)
        modified = new.replace(slot, _modified(slot, modifier), 1)
        yield Pair(cached, modified, False, "modifier", family.name, own, f"{own}/{modifier}")
    different = chance.choice([one for one in family.slots if one != slot])
    line = chance.choice(family.groups[number]).replace("{x}", different)
    yield Pair(cached, line, False, "other_thing", family.name, own, f"{family.name}/{different}/{number}")


def _with_filler(line: str, filler: str) -> str:
    """Put `filler` after the second or third word, where adverbs usually stand."""
    parts = line.split(" ")
    at = 3 if parts[0] in ("How", "What", "Why", "When", "Where") and len(parts) > 4 else 2
    return " ".join([*parts[:at], filler, *parts[at:]])


def _modified(slot: str, modifier: str) -> str:
    """Put `modifier` before the noun, after its article: "a dry cough" for "a cough"."""
    article, space, rest = slot.partition(" ")
    return f"{article} {modifier} {rest}" if space and article in ("a", "an", "the") else f"{modifier} {slot}"


def _qualified(line: str, qualifier: str) -> str:
    return f"{line[:-1]} {qualifier}{line[-1]}"


def split(pairs: Sequence[Pair], held_out: frozenset[str]) -> tuple[list[Pair], list[Pair]]:
    """Split into (training, held out) by family, so that no class and no word of a slot is on both sides."""
    return (
        [one for one in pairs if one.family not in held_out],
        [one for one in pairs if one.family in held_out],
    )
