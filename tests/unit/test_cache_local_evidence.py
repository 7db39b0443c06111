"""What a tenant's judged hits do to its threshold."""

import pytest

from cache.calibration import NEVER, shipped_score
from cache.local_evidence import LocalEvidence

RATE = 0.005


def evidence(**options: int) -> LocalEvidence:
    return LocalEvidence(shipped_score(), "encoder", **options)


def judged(local: LocalEvidence, score: float, right: int, wrong: int = 0, others: int = 0) -> None:
    """Count `right + wrong` semantic hits of that score among `others` further requests, and judge them."""
    for number in range(right + wrong):
        local.count("acme", "semantic", is_candidate=True)
        local.judge("acme", score, is_right=number < right)
    for _ in range(others):
        local.count("acme", "miss")


def test_the_shipped_threshold_holds_until_the_tenant_has_evidence() -> None:
    local = evidence()
    judged(local, 0.9, right=50)
    standing = local.standing("acme", RATE)
    assert (standing.threshold, standing.source) == (shipped_score().threshold(RATE), "shipped")
    assert standing.bound <= RATE


def test_enough_right_hits_replace_it_and_may_loosen_it() -> None:
    local = evidence(least_judged=300)
    judged(local, 0.5, right=300, others=1_000)
    standing = local.standing("acme", RATE)
    assert standing.source == "local"
    assert standing.threshold < shipped_score().threshold(RATE)
    assert 0.0 < standing.bound <= RATE


def test_a_few_wrong_hits_tighten_at_once_and_only_as_far_as_needed() -> None:
    local = evidence()
    judged(local, 0.8, right=2, wrong=8)
    judged(local, 0.95, right=40)
    standing = local.standing("acme", RATE)
    assert standing.source == "tightened"
    assert 0.8 < standing.threshold <= 0.95
    assert local.standing("other", RATE).source == "shipped"


def test_wrong_hits_at_every_score_demote_to_exact_hits() -> None:
    local = evidence()
    judged(local, 0.995, right=0, wrong=10)
    standing = local.standing("acme", RATE)
    assert (standing.threshold, standing.source) == (NEVER, "demoted")


def test_enough_evidence_of_wrong_hits_demotes_too() -> None:
    local = evidence(least_judged=20)
    judged(local, 0.995, right=10, wrong=10)
    assert local.standing("acme", RATE).source == "demoted"


def test_a_tenant_may_wait_for_its_own_calibration() -> None:
    local = evidence(least_judged=20)
    waiting = local.standing("acme", RATE, exact_only_until_calibrated=True)
    assert (waiting.threshold, waiting.source) == (NEVER, "uncalibrated")
    judged(local, 0.9, right=20, others=100_000)
    assert local.standing("acme", RATE, exact_only_until_calibrated=True).source == "local"


def test_a_stricter_rate_never_gives_a_lower_threshold() -> None:
    local = evidence(least_judged=100)
    judged(local, 0.6, right=90, wrong=2, others=5_000)
    judged(local, 0.9, right=200)
    thresholds = [local.standing("acme", rate).threshold for rate in (0.05, 0.01, 0.005, 0.001, 0.0001)]
    assert thresholds == sorted(thresholds)


def test_reported_pairs_are_bounded_and_belong_to_one_tenant() -> None:
    local = evidence()
    for number in range(1_001):
        local.veto("acme", f"cached-{number}", "new")
    assert not local.is_vetoed("acme", "cached-0", "new")
    assert local.is_vetoed("acme", "cached-1000", "new")
    assert not local.is_vetoed("other", "cached-1000", "new")


def test_everything_survives_a_restart_but_scores_of_another_encoder() -> None:
    local = evidence()
    judged(local, 0.8, right=2, wrong=8, others=5)
    local.veto("acme", "cached", "new")
    again, other = evidence(), LocalEvidence(shipped_score(), "another")
    for restored in (again, other):
        restored.restore(local.dump())
        assert restored.is_vetoed("acme", "cached", "new")
    assert again.reports() == local.reports()
    assert again.reports()[0].judged == 10
    assert other.reports()[0].judged == 0
    assert other.reports()[0].requests == 15


def test_a_newer_record_is_refused() -> None:
    newer = evidence().dump().replace(b'"schema":1', b'"schema":2')
    with pytest.raises(ValueError, match="schema 2"):
        evidence().restore(newer)


def test_a_report_tells_hit_rate_threshold_and_bound() -> None:
    local = evidence()
    judged(local, 0.9, right=3, wrong=1, others=6)
    (report,) = local.reports({"acme": RATE})
    assert (report.tenant, report.requests, report.semantic, report.judged, report.wrong) == ("acme", 10, 4, 4, 1)
    assert report.threshold == shipped_score().threshold(RATE)
    local.forget("acme")
    assert local.reports() == []
