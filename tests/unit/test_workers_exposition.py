"""The page of metrics that several workers make together is one that Prometheus reads, and adds up."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import Metrics
from gateway.workers.exposition import together
from tests.traces import a_trace


def page(requests: int, *more: str) -> str:
    metrics = Metrics({"acme"}.__contains__)
    for _ in range(requests):
        metrics.record(a_trace(tenant="acme"))
    return metrics.exposition()[0].decode() + "".join(f"{line}\n" for line in more)


LIMIT = ("# HELP headgate_budget_limit_usd x", "# TYPE headgate_budget_limit_usd gauge")


def test_every_series_says_whose_it_is_and_the_sum_is_that_of_all() -> None:
    families = {one.name: one for one in text_string_to_metric_families(together({0: page(2), 1: page(3)}))}
    counted = [one for one in families["headgate_requests"].samples if one.name.endswith("_total")]
    assert {one.labels["worker"]: one.value for one in counted} == {"0": 2.0, "1": 3.0}
    buckets = [one for one in families["headgate_request_seconds"].samples if one.labels.get("le") == "+Inf"]
    assert sum(one.value for one in buckets) == 5.0
    assert all("worker" in one.labels for one in families["process_cpu_seconds"].samples)


def test_each_family_is_described_once() -> None:
    lines = together({0: page(1), 1: page(1), 2: page(1)}).splitlines()
    heads = [line for line in lines if line.startswith("# TYPE")]
    assert len(heads) == len(set(heads))


def test_what_is_one_over_all_is_shown_by_the_first_alone() -> None:
    told = together({n: page(0, *LIMIT, f'headgate_budget_limit_usd{{tenant="a b"}} {n}.0') for n in (0, 1)})
    assert [line for line in told.splitlines() if line.startswith("headgate_budget_limit_usd")] == [
        'headgate_budget_limit_usd{tenant="a b"} 0.0'
    ]


def test_a_worker_that_does_not_answer_is_told_as_down() -> None:
    families = {one.name: one for one in text_string_to_metric_families(together({0: page(1), 1: None}))}
    up = {one.labels["worker"]: one.value for one in families["headgate_worker_up"].samples}
    assert up == {"0": 1.0, "1": 0.0}
