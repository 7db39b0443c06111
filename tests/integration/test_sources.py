"""Savings by source over a real log and real files beside the state: what is measured, and what says how to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from backends.engines.recipes import Recipe, load_recipe
from core.clock import ManualClock
from core.money import Price, Usage
from core.trace import RequestTrace
from gateway.hosting.encoder_meter import EncoderMeter
from gateway.hosting.engine_hours import EngineCost, add_encoding, add_hours, sum_encoding
from gateway.hosting.quantised_prices import TokenSaving, token_savings
from gateway.reporting.sources import Machine, SourceLine, by_source
from gateway.settings.measured_prices import measured_file
from gateway.telemetry.log_reader import LogReader, Window
from gateway.telemetry.request_log import RequestLog
from policies.loaded_cost import EngineUse
from policies.measured_price import MeasuredPrice, measured_text
from policies.safe_yaml import load_yaml
from tests.traces import RECEIVED_AT, a_hit, a_trace, an_attempt

HOUR = timedelta(hours=1)
DAY = Window.between((RECEIVED_AT - 20 * HOUR).timestamp(), (RECEIVED_AT + HOUR).timestamp())
MINUTES = Window.between((RECEIVED_AT - HOUR).timestamp(), (RECEIVED_AT + HOUR).timestamp())


@dataclass(frozen=True, slots=True)
class Place:
    """A log with two tenants' requests, and the file of hours beside it."""

    folder: Path
    reader: LogReader
    hours: Path
    known: dict[str, TokenSaving | str] = field(default_factory=dict)

    def lines(
        self, tenant: str | None = None, window: Window = DAY, hourly: str | None = "7.2"
    ) -> dict[str, SourceLine]:
        machine = Machine(
            self.hours, None if hourly is None else Decimal(hourly), frozenset({"s1"}), lambda: dict(self.known)
        )
        found = by_source(self.reader, machine, window, tenant)
        return {line.source: line for line in (*found.sources, *found.beside)}


def answer(number: int, tenant: str, cost_nano_usd: int) -> RequestTrace:
    attempt = an_attempt(cost_nano_usd=cost_nano_usd)
    return a_trace(
        request_id=f"req_{number}", tenant=tenant, attempts=(attempt,), cost_nano_usd=cost_nano_usd,
        usage=Usage(2_000, 500), baseline_nano_usd=10_000,
    )  # fmt: skip


@pytest.fixture
def place(tmp_path: Path) -> Place:
    log = RequestLog(tmp_path / "requests.db", now_s=RECEIVED_AT.timestamp)
    for trace in (answer(1, "acme", 1_000), answer(2, "acme", 2_000), answer(3, "globex", 1_000)):
        log.record(trace)
    log.record(a_hit(request_id="req_4", usage=Usage(2_000, 500), baseline_nano_usd=10_000))
    log.close()
    return Place(tmp_path, LogReader(tmp_path / "requests.db"), tmp_path / "hours.db")


def test_without_inputs_every_line_says_what_would_measure_it(place: Place) -> None:
    lines = place.lines(hourly=None)
    assert lines["quantisation"] == SourceLine("quantisation", None, "no model that is hosted here is quantised")
    assert "machine_hourly_usd" in (lines["embedding"].why_not or "")
    assert (lines["idle hardware"].why_not or "").startswith("not enough evidence yet")
    assert (place.lines()["embedding"].why_not or "").startswith("not enough evidence yet")


def test_quantisation_is_taken_out_of_routing_and_the_sum_stays(place: Place) -> None:
    before = place.lines()
    place.known["s1"] = TokenSaving(input_pico_usd=500, output_pico_usd=1_000)
    after = place.lines()
    assert after["quantisation"].saved_nano_usd == 3 * (1_000 + 500)  # three answers; the hit cost nothing
    assert (after["routing"].saved_nano_usd or 0) == (before["routing"].saved_nano_usd or 0) - 4_500
    assert place.lines("globex")["quantisation"].saved_nano_usd == 1_500


def test_a_deployment_that_was_not_measured_is_named_beside_the_figure(place: Place) -> None:
    place.known.update({"s1": TokenSaving(500, 1_000), "s2": "run `headgate prices measure full`"})
    line = place.lines()["quantisation"]
    assert (line.saved_nano_usd, line.why_not) == (4_500, "without s2: run `headgate prices measure full`")


def test_idle_hours_cost_and_a_tenant_bears_the_part_that_it_used(place: Place) -> None:
    idle = EngineCost(EngineUse(3_600.0, 600.0), 1_000_000, 800_000)
    add_hours(place.hours, RECEIVED_AT, {"s1": idle, "free": EngineCost(EngineUse(10.0), None, None)})
    whole, acme = place.lines()["idle hardware"], place.lines("acme")["idle hardware"]
    assert (whole.saved_nano_usd, acme.saved_nano_usd) == (-800_000, -600_000)
    assert whole.why_not == "without free: no `hourly_usd`"
    assert place.lines(window=MINUTES)["idle hardware"].saved_nano_usd is None


def test_engines_without_an_hours_price_are_not_measured(place: Place) -> None:
    add_hours(place.hours, RECEIVED_AT, {"s1": EngineCost(EngineUse(10.0), None, None)})
    assert place.lines()["idle hardware"] == SourceLine(
        "idle hardware", None, "write `hourly_usd` in the engines' recipes"
    )


def test_encoding_costs_its_cpu_seconds_of_the_machines_hour(place: Place, tmp_path: Path) -> None:
    add_encoding(place.hours, RECEIVED_AT, 30.0)
    add_encoding(place.hours, RECEIVED_AT, 6.0)
    whole = place.lines()["embedding"].saved_nano_usd
    per_core_hour = 7.2 * 10**9 * 36.0 / 3600
    assert whole is not None
    assert -whole <= per_core_hour  # of one core; the machine's hour is shared by all of its cores
    assert place.lines("acme")["embedding"].saved_nano_usd == round(whole * 3 / 4)  # three of four look-ups
    assert sum_encoding(tmp_path / "none.db", datetime(2026, 1, 1, tzinfo=UTC), RECEIVED_AT) is None


def test_a_file_from_before_the_encoder_was_metered_has_no_encoding(place: Place) -> None:
    place.hours.write_bytes(b"")
    assert (place.lines()["embedding"].why_not or "").startswith("not enough evidence yet")


def test_the_meter_writes_what_is_new_and_keeps_what_it_could_not_write(tmp_path: Path) -> None:
    used = [1.5]
    file = tmp_path / "hours.db"
    file.mkdir()
    meter = EncoderMeter(lambda: used[0], file, ManualClock(RECEIVED_AT))
    meter.write()
    file.rmdir()
    used[0] = 2.0
    meter.write()
    meter.write()
    assert sum_encoding(file, RECEIVED_AT - HOUR, RECEIVED_AT + HOUR) == 2.0


def recipes(full: str | None) -> Mapping[str, Recipe]:
    return {
        "small": replace(load_recipe("bundled-small-int4", load_yaml), full_precision=full),
        "large": load_recipe("bundled-large", load_yaml),
    }


def told(folder: Path, full: str | None, price: Price) -> TokenSaving | str:
    (found,) = token_savings(recipes(full), {"small": price, "large": price}, folder).values()
    return found


MEASURED = Price(1_000, 2_000, source="measured 2026-08-01T00:00:00Z on engine 1.2")


def test_what_is_missing_for_quantisation_is_said_one_step_after_the_other(tmp_path: Path) -> None:
    assert "full_precision" in str(told(tmp_path, None, MEASURED))
    assert "price: measured" in str(told(tmp_path, "whole", Price(1, 2)))
    assert told(tmp_path, "whole", MEASURED) == "run `headgate prices measure whole`"
    measured = MeasuredPrice(
        recipe="whole", engine="engine 1.2", precision="fp16", weights_digest="d",
        measured_at=RECEIVED_AT.replace(microsecond=0),
        hourly_usd=Decimal("3.6"), cores=1, concurrency=8, cpu_s_per_m_input=Decimal(2), cpu_s_per_m_output=Decimal(7),
    )  # fmt: skip
    file = measured_file(tmp_path, "whole")
    file.parent.mkdir()
    file.write_text(measured_text(replace(measured, precision="int8")))
    assert "name a recipe at full precision" in str(told(tmp_path, "whole", MEASURED))
    file.write_text(measured_text(measured))
    assert told(tmp_path, "whole", MEASURED) == TokenSaving(1_000, 5_000)
    file.write_text("recipe: whole\n")
    assert str(file) in str(told(tmp_path, "whole", MEASURED))
