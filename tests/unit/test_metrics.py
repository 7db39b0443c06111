"""What the exposition says after a handful of traces."""

from prometheus_client.parser import text_string_to_metric_families

from core.money import Usage
from core.trace import AttemptOutcome
from gateway.telemetry.metrics import Metrics
from tests.traces import a_hit, a_refusal, a_trace, an_attempt


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """Return one sample, or 0.0 when there is none."""
    text = metrics.exposition()[0].decode()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return 0.0


def test_a_request_is_counted_by_tenant_status_cache_and_tier() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace())
    metrics.record(a_trace())
    labels = {"tenant": "acme", "status": "200", "cache": "miss", "tier": "small"}
    assert value(metrics, "headgate_requests_total", **labels) == 2
    assert value(metrics, "headgate_tokens_total", tenant="acme", tier="small", kind="input") == 40
    assert value(metrics, "headgate_tokens_total", tenant="acme", tier="small", kind="output") == 10
    assert value(metrics, "headgate_cost_usd_total", tenant="acme", tier="small") == 3.0
    assert value(metrics, "headgate_route_decisions_total", tier="small", reason="score") == 2
    assert value(metrics, "headgate_attempts_total", deployment="s1", outcome="complete") == 2
    assert value(metrics, "headgate_sla_violations_total", tenant="acme", tier="small") == 0


def test_a_hit_counts_what_it_saved_and_no_tokens() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_hit())
    assert value(metrics, "headgate_saved_usd_total", tenant="acme", tier="small") == 1.5
    assert value(metrics, "headgate_tokens_total", tenant="acme", tier="small", kind="output") == 0


def test_a_hit_on_an_answer_that_cost_nothing_counts_no_tokens_either() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_hit(saved_nano_usd=0))
    assert value(metrics, "headgate_tokens_total", tenant="acme", tier="small", kind="output") == 0


def test_every_attempt_is_counted_by_its_outcome() -> None:
    metrics = Metrics({"acme"}.__contains__)
    failed = an_attempt(deployment="s0", outcome=AttemptOutcome.TIMED_OUT, usage=None)
    metrics.record(a_trace(attempts=(failed, an_attempt(n=2))))
    assert value(metrics, "headgate_attempts_total", deployment="s0", outcome="timed_out") == 1
    assert value(metrics, "headgate_attempts_total", deployment="s1", outcome="complete") == 1


def test_a_refusal_before_a_plan_has_no_tier_no_tokens_and_no_first_token() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_refusal())
    labels = {"tenant": "acme", "status": "429", "cache": "bypass", "tier": "none"}
    assert value(metrics, "headgate_requests_total", **labels) == 1
    assert value(metrics, "headgate_ttft_seconds_count", tier="none") == 0
    assert value(metrics, "headgate_request_seconds_count", tier="none") == 1


def test_a_tenant_that_is_not_configured_shares_one_label() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace(tenant="stranger-1"))
    metrics.record(a_trace(tenant="stranger-2"))
    labels = {"tenant": "other", "status": "200", "cache": "miss", "tier": "small"}
    assert value(metrics, "headgate_requests_total", **labels) == 2
    assert b"stranger" not in metrics.exposition()[0]


def test_times_are_observed_in_seconds() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace(usage=Usage(1, 1)))
    assert value(metrics, "headgate_ttft_seconds_sum", tier="small") == 0.0615
    assert value(metrics, "headgate_request_seconds_sum", tier="small") == 0.11225
    assert value(metrics, "headgate_overhead_seconds_sum", tier="small") == 0.01225


def test_the_limits_of_slas_are_bounds_of_the_histograms() -> None:
    metrics = Metrics({"acme"}.__contains__, sla_bounds_s=[0.123, 0.5])
    metrics.record(a_trace())
    assert value(metrics, "headgate_ttft_seconds_bucket", tier="small", le="0.123") == 1
    assert value(metrics, "headgate_request_seconds_bucket", tier="small", le="0.123") == 1
    assert metrics.exposition()[0].count(b'headgate_ttft_seconds_bucket{le="0.5",') == 1


def test_a_violation_is_counted() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace(sla_violated=True))
    assert value(metrics, "headgate_sla_violations_total", tenant="acme", tier="small") == 1


def test_refusals_without_a_tenant_and_readiness_have_their_own_series() -> None:
    metrics = Metrics(set[str]().__contains__)
    metrics.refused("invalid_api_key")
    metrics.tier_ready("small", True)
    metrics.tier_ready("large", False)
    assert value(metrics, "headgate_refusals_total", code="invalid_api_key") == 1
    assert value(metrics, "headgate_tier_ready", tier="small") == 1
    assert b'headgate_tier_ready{tier="large"} 0.0' in metrics.exposition()[0]


def test_two_registries_do_not_share_counts() -> None:
    first, second = Metrics({"acme"}.__contains__), Metrics({"acme"}.__contains__)
    first.record(a_trace())
    assert value(second, "headgate_route_decisions_total", tier="small", reason="score") == 0


def test_attainment_can_be_told_from_what_was_judged_and_what_was_missed() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace(sla_total_ms=2000.0))
    metrics.record(a_trace(sla_total_ms=100.0, sla_violated=True))
    metrics.record(a_trace())
    assert value(metrics, "headgate_sla_judged_total", tenant="acme", tier="small") == 2
    assert value(metrics, "headgate_sla_violations_total", tenant="acme", tier="small") == 1


def test_the_baseline_is_kept_apart_by_what_saved_on_it() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace(baseline_nano_usd=4_000_000_000))
    metrics.record(a_hit(baseline_nano_usd=3_000_000_000))
    metrics.record(a_trace(baseline_nano_usd=None))
    metrics.record(a_trace(path="shadow:cache", baseline_nano_usd=9_000_000_000))
    assert value(metrics, "headgate_baseline_usd_total", tenant="acme", source="routing") == 5.5
    assert value(metrics, "headgate_baseline_usd_total", tenant="acme", source="cache") == 3.0


def test_the_pace_of_a_stream_is_the_time_between_its_tokens() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace(ttft_ms=60.0, total_ms=100.0, usage=Usage(20, 5)))
    metrics.record(a_trace(stream=False))
    metrics.record(a_hit())
    assert value(metrics, "headgate_tpot_seconds_sum", tier="small") == 0.01
    assert value(metrics, "headgate_tpot_seconds_count", tier="small") == 1


def test_of_very_many_sla_limits_the_commonest_become_bounds() -> None:
    metrics = Metrics({"acme"}.__contains__, sla_bounds_s=[0.111, 0.111, *(20 + n / 1000 for n in range(500))])
    metrics.record(a_trace())
    text = metrics.exposition()[0]
    assert b'headgate_ttft_seconds_bucket{le="0.111",' in text
    assert text.count(b"headgate_ttft_seconds_bucket{") < 50


def test_no_series_is_spent_on_when_a_counter_was_made() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace())
    assert b"_created" not in metrics.exposition()[0]


def test_nothing_that_a_caller_chooses_makes_a_series() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace())
    metrics.record(a_trace(tenant="somebody"))
    series = len(metrics.exposition()[0].splitlines())
    for n in range(50):
        metrics.record(
            a_trace(
                request_id=f"req_{n}",
                tenant=f"tenant-{n}",
                key_id=f"key-{n}",
                model_alias=f"model-{n}",
                session_id=f"session-{n}",
                path=f"/v1/mapped/{n}",
                cache_detail=f"near:{n}",
            )
        )
    assert len(metrics.exposition()[0].splitlines()) == series
