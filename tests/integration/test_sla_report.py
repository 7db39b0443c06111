"""The SLA report over a real request log: attainment, budget, burn rates, percentiles, goodput, cost of rescue."""

from datetime import timedelta
from pathlib import Path

import pytest

from core.money import Usage
from core.rules import TenantPolicy
from core.trace import AttemptKind, AttemptOutcome
from gateway.reporting.sla_report import SlaReport, sla_report
from gateway.settings.retention import Retention
from gateway.telemetry.log_reader import LogReader, Window
from gateway.telemetry.request_log import RequestLog
from policies.loading import PolicySet
from tests.policy_samples import tenant_policy
from tests.traces import RECEIVED_AT, a_hit, a_refusal, a_trace, an_attempt

NOW_S = RECEIVED_AT.timestamp() + 60
LOST = an_attempt(n=1, outcome=AttemptOutcome.FAILED, cost_nano_usd=250)


def acme() -> TenantPolicy:
    return tenant_policy("sla: {small: {ttft_ms: 300, total_ms: 1000, objective_ratio: 0.9}}")


@pytest.fixture
def reader(tmp_path: Path) -> LogReader:
    """A hundred judged requests of one tenant, eight late an hour ago and two late now; others that are not judged."""
    log = RequestLog(tmp_path / "requests.db", Retention(), now_s=lambda: NOW_S)
    for n in range(100):
        is_late = n >= 90
        log.record(
            a_trace(
                request_id=f"req_{n:032x}",
                received_at=RECEIVED_AT - timedelta(hours=0 if n in (0, 1, 98, 99) else 2),
                sla_total_ms=1000.0,
                sla_violated=is_late,
                ttft_ms=100.0,
                total_ms=2000.0 if is_late else 500.0,
                usage=Usage(20, 11),
                attempts=(LOST, an_attempt(n=2, kind=AttemptKind.FALLBACK)) if n == 5 else (an_attempt(),),
            )
        )
    log.record(a_hit(request_id=f"hit_{200:032x}"))
    log.record(a_refusal(request_id=f"ref_{201:032x}", sla_total_ms=1000.0))
    log.record(a_trace(request_id=f"oth_{202:032x}", tenant="globex"))
    log.close()
    return LogReader(tmp_path / "requests.db")


def report_of(reader: LogReader, tenant: str | None = None) -> SlaReport:
    window = Window.between(NOW_S - 86_400, NOW_S)
    return sla_report(reader, PolicySet.of({"acme": acme()}), window, NOW_S, tenant)


def test_a_line_says_how_well_the_sla_was_kept(reader: LogReader) -> None:
    (line,) = report_of(reader).lines
    assert (line.tenant, line.tier, line.judged, line.missed) == ("acme", "small", 100, 10)
    assert line.attainment_ratio == 0.9
    assert line.budget_left_ratio == pytest.approx(0.0, abs=1e-9)
    assert (line.ttft_limit_ms, line.total_limit_ms, line.objective_ratio) == (300, 1000, 0.9)


def test_burn_rates_tell_how_it_goes_lately(reader: LogReader) -> None:
    (line,) = report_of(reader).lines
    assert line.burn_rates["5m"] == pytest.approx(5.0)
    assert line.burn_rates["6h"] == pytest.approx(1.0)
    assert line.burn_rates["3d"] == pytest.approx(1.0)


def test_percentiles_are_those_of_answers_that_deployments_gave(reader: LogReader) -> None:
    (line,) = report_of(reader).lines
    assert line.total_ms["p50"] == pytest.approx(500, rel=0.011)
    assert line.total_ms["p95"] == pytest.approx(2000, rel=0.011)
    assert line.ttft_ms["p99"] == pytest.approx(100, rel=0.011)
    assert line.tpot_ms["p50"] == pytest.approx(40, rel=0.011)


def test_goodput_and_the_cost_of_rescue(reader: LogReader) -> None:
    (line,) = report_of(reader).lines
    window = Window.between(NOW_S - 86_400, NOW_S)
    assert line.goodput_per_s == 90 / (window.end_s - window.start_s)
    assert (line.fallbacks.count, line.fallbacks.cost_nano_usd) == (1, 250)
    assert (line.retries.count, line.hedges.count) == (0, 0)


def test_a_tenant_without_an_sla_is_shown_when_it_is_named(reader: LogReader) -> None:
    (line,) = report_of(reader, "globex").lines
    assert (line.judged, line.attainment_ratio, line.budget_left_ratio) == (0, None, None)
    assert line.total_ms["p50"] is not None


def test_an_empty_log_gives_an_empty_report(tmp_path: Path) -> None:
    RequestLog(tmp_path / "none.db").close()
    assert report_of(LogReader(tmp_path / "none.db")).lines == ()
