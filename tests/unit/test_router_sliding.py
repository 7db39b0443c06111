"""The sliding quantile that keeps a mean at its target."""

import random

import pytest

from router.sliding import MAX_DEBT, WINDOW, Seen, Slider


def run(slider: Slider, scores: list[float], target: float) -> list[bool]:
    """Send each score up when it lies below the floor of its moment."""
    sent_up = []
    for score in scores:
        floor = slider.floor(target)
        is_up = score < (0.5 if floor is None else floor)
        slider.note(Seen(score, 0, 1), int(is_up), target)
        sent_up.append(is_up)
    return sent_up


def drawn(n: int, low: float, high: float, seed: int = 1) -> list[float]:
    dice = random.Random(seed)
    return [dice.uniform(low, high) for _ in range(n)]


def test_nothing_seen_means_no_floor() -> None:
    assert Slider().floor(0.4) is None


@pytest.mark.parametrize("target", [0.0, 0.1, 0.4, 0.9, 1.0])
def test_the_share_is_kept_whatever_the_scores_look_like(target: float) -> None:
    sent_up = run(Slider(), drawn(3_000, 0.7, 0.75), target)
    assert sum(sent_up[500:]) / 2_500 == pytest.approx(target, abs=0.01)


def test_the_share_is_kept_after_the_scores_shift() -> None:
    slider = Slider()
    run(slider, drawn(1_000, 0.6, 0.9), 0.4)
    sent_up = run(slider, drawn(1_500, 0.1, 0.3), 0.4)
    assert sum(sent_up[500:]) / 1_000 == pytest.approx(0.4, abs=0.02)


def test_equal_scores_are_sent_up_in_turns() -> None:
    sent_up = run(Slider(), [0.73] * 2_000, 0.3)
    assert sum(sent_up[500:]) / 1_500 == pytest.approx(0.3, abs=0.01)


def test_the_first_requests_keep_the_share_even_when_each_is_easier_than_the_one_before() -> None:
    sent_up = run(Slider(), [0.5 + n / 1_000 for n in range(80)], 0.4)
    assert 18 <= sum(sent_up) <= 40


def test_the_hardest_go_up() -> None:
    slider = Slider()
    scores = drawn(2_000, 0.0, 1.0)
    sent_up = run(slider, scores, 0.4)
    up = [score for score, is_up in zip(scores[500:], sent_up[500:], strict=True) if is_up]
    assert sum(score < 0.5 for score in up) / len(up) > 0.95


def test_what_others_decided_counts_towards_the_share() -> None:
    slider, up = Slider(), 0
    scores = drawn(2_000, 0.0, 1.0)
    for n, score in enumerate(scores):
        is_forced = n % 5 == 0
        floor = slider.floor(0.4)
        is_up = is_forced or score < (0.5 if floor is None else floor)
        slider.note(Seen(None, 1, 0) if is_forced else Seen(score, 0, 1), int(is_up), 0.4)
        up += is_up and n >= 500
    assert up / 1_500 == pytest.approx(0.4, abs=0.01)


def test_when_others_use_more_than_the_target_nothing_else_goes_up() -> None:
    slider = Slider()
    slider.note(Seen(0.1, 0, 1), 0, 0.2)
    for _ in range(100):
        slider.note(Seen(None, 1, 0), 1, 0.2)
    assert slider.floor(0.2) == 0.0


def test_a_mean_cost_is_kept_by_its_base_and_extra() -> None:
    slider, dice, costs = Slider(), random.Random(2), []
    for score in drawn(3_000, 0.0, 1.0):
        base, extra = dice.randint(10, 30), dice.randint(100, 300)
        floor = slider.floor(80)
        cost = base + (extra if score < (0.5 if floor is None else floor) else 0)
        slider.note(Seen(score, base, extra), cost, 80)
        costs.append(cost)
    assert sum(costs[500:]) / 2_500 == pytest.approx(80, rel=0.02)


def test_the_window_and_the_debt_are_bounded() -> None:
    slider = Slider()
    for _ in range(WINDOW + 100):
        slider.note(Seen(0.5, 0, 1), 0, 1.0)
    assert len(slider.window) == WINDOW
    assert slider.debt == MAX_DEBT


def test_what_money_kept_down_is_not_made_up_for() -> None:
    slider = Slider()
    for _ in range(100):
        slider.note(Seen(0.5, 0, 1), 0, 0.4, may_owe=False)
    assert slider.debt == 0.0


def test_equal_requests_give_equal_floors() -> None:
    one, other = Slider(), Slider()
    scores = drawn(1_000, 0.0, 1.0)
    assert run(one, scores, 0.35) == run(other, scores, 0.35)
    assert one.floor(0.35) == other.floor(0.35)
