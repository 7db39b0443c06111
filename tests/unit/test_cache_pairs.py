"""The generated pairs: labelled by construction, the same for the same seed, and kept apart by family."""

from cache.pairs import generate_pairs, load_frames, split

FRAMES = load_frames()
PAIRS = list(generate_pairs(FRAMES, seed=1))


def test_a_pair_is_the_same_if_and_only_if_its_classes_are() -> None:
    assert all(one.is_same == (one.class_cached == one.class_new) for one in PAIRS)
    assert {one.category for one in PAIRS if one.is_same} == {"paraphrase", "filler"}
    assert {one.category for one in PAIRS if not one.is_same} == {
        "other_question", "qualifier", "modifier", "other_thing",
    }  # fmt: skip


def test_the_seed_decides() -> None:
    assert list(generate_pairs(FRAMES, seed=1)) == PAIRS
    assert list(generate_pairs(FRAMES, seed=2)) != PAIRS


def test_every_template_is_filled() -> None:
    assert not any("{x}" in one.cached + one.new for one in PAIRS)
    assert {one.family for one in PAIRS} == {family.name for family in FRAMES.families}


def test_a_split_keeps_families_apart() -> None:
    training, held_out = split(PAIRS, frozenset({"plant", "dish"}))
    assert {one.family for one in held_out} == {"plant", "dish"}
    assert len(training) + len(held_out) == len(PAIRS)
    assert not {one.class_cached for one in training} & {one.class_cached for one in held_out}
