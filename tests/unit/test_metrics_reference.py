"""The reference of metrics is current, and what it says is what `/metrics` says."""

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.metrics import Metrics
from gateway.telemetry.reference import families, reference
from tests.traces import a_trace

ROOT = Path(__file__).parents[2]


def test_the_reference_is_current() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == reference(), "run: python -m gateway.telemetry.reference > docs/metrics.md"


def test_every_name_is_unique_and_says_its_unit() -> None:
    names = [family.full_name for family in families()]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.endswith(("_ms", "_nano_usd"))]


def test_what_is_shown_is_in_the_reference() -> None:
    metrics = Metrics({"acme"}.__contains__)
    metrics.record(a_trace())
    known = {"headgate_" + family.name: family for family in families()}
    for shown in text_string_to_metric_families(metrics.exposition()[0].decode()):
        if shown.name.startswith("headgate_"):
            assert shown.documentation == known[shown.name].text
            labels = {label for sample in shown.samples for label in sample.labels} - {"le"}
            assert labels <= set(known[shown.name].labels)
