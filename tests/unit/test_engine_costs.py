"""What hosted engines cost: marginal, held and idle, metered without a second clock and kept by the hour."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from backends.engines.engine_state import EngineState
from backends.engines.recipes import load_recipe
from backends.engines.supervisor import Supervisor
from core.clock import ManualClock
from core.money import Usage
from gateway.cli import main
from gateway.hosting.engine_costs import EngineCosts
from gateway.hosting.engine_hours import EngineCost, add_hours, sum_hours
from policies.loaded_cost import EngineUse, loaded_cost
from policies.safe_yaml import load_yaml
from tests.traces import a_trace, an_attempt

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
USED = EngineUse(3600.0, 900.0, 10, 5, 20_000_000)


def test_the_hour_is_held_whether_or_not_anybody_asks() -> None:
    cost = loaded_cost(USED, Decimal("0.08"), Fraction(1, 2))
    assert (cost.held_nano_usd, cost.idle_nano_usd, cost.ratio) == (40_000_000, 30_000_000, 2.0)
    assert loaded_cost(EngineUse(up_s=3600.0), Decimal(1), Fraction(1)).ratio is None
    assert loaded_cost(EngineUse(up_s=1.0, busy_s=2.0), Decimal(1), Fraction(1)).idle_nano_usd == 0


class Engines:
    """Two engines that are what the test says, of one machine; their recipes claim the same memory."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock(NOON)
        self.states = {name: SimpleNamespace(state=EngineState.READY, requests=0) for name in ("small", "large")}
        recipes = {
            "small": load_recipe("bundled-small-int4", load_yaml),
            "large": load_recipe("bundled-large", load_yaml),
        }
        self.file = folder / "hours.db"
        self.costs = EngineCosts(cast("dict[str, Supervisor]", self.states), recipes, self.file, self.clock)

    def spend(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.costs.look()


def test_up_and_busy_are_told_apart_and_the_hour_is_shared_by_memory(tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    engines.spend(1800)
    engines.states["small"].requests = 2
    engines.states["large"].state = EngineState.SLEEPING
    engines.spend(1800)
    small, large = engines.costs.cost("small"), engines.costs.cost("large")
    assert (small.use.up_s, small.use.busy_s) == (3600.0, 1800.0)
    assert (small.held_nano_usd, small.idle_nano_usd) == (40_000_000, 20_000_000)
    assert (large.use.up_s, large.use.busy_s, large.held_nano_usd) == (1800.0, 0.0, 20_000_000)


def test_the_tokens_of_every_attempt_on_a_hosted_engine_count(tmp_path: Path) -> None:
    engines = Engines(tmp_path)
    attempts = (
        an_attempt(n=1, deployment="small", usage=Usage(10, 2), cost_nano_usd=30),
        an_attempt(n=2, deployment="cloud", usage=Usage(99, 9), cost_nano_usd=999),
        an_attempt(n=3, deployment="small", usage=None, cost_nano_usd=0),
        an_attempt(n=4, deployment="small", usage=Usage(1, 1), cost_nano_usd=3),
    )
    engines.costs.record(a_trace(attempts=attempts))
    use = engines.costs.cost("small").use
    assert (use.input_tokens, use.output_tokens, use.marginal_nano_usd) == (11, 3, 33)


def test_hours_add_up_over_restarts_and_write_nothing_twice(tmp_path: Path) -> None:
    for _ in range(2):
        engines = Engines(tmp_path)
        engines.spend(600)
        engines.costs.write()
        engines.costs.write()
    found = sum_hours(engines.file, NOON, NOON + timedelta(hours=1))
    assert found["small"].use.up_s == 1200.0
    assert found["small"].held_nano_usd == 2 * round(Fraction(40_000_000, 6))
    assert sum_hours(engines.file, NOON + timedelta(hours=1), NOON + timedelta(hours=2)) == {}


def test_what_could_not_be_written_is_written_the_next_time(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    engines = Engines(tmp_path)
    engines.file.mkdir()
    engines.spend(600)
    engines.costs.write()
    assert "the engines' hours cannot be written" in caplog.text
    engines.file.rmdir()
    engines.spend(600)
    engines.costs.write()
    assert sum_hours(engines.file, NOON, NOON + timedelta(hours=1))["small"].use.up_s == 1200.0


def test_an_hour_without_a_price_has_no_cost(tmp_path: Path) -> None:
    add_hours(tmp_path / "h.db", NOON, {"gpu": EngineCost(USED, None, None)})
    found = sum_hours(tmp_path / "h.db", NOON, NOON + timedelta(hours=1))["gpu"]
    assert (found.use, found.held_nano_usd, found.ratio) == (USED, None, None)


def test_the_command_shows_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "headgate.yaml"
    config.write_text("tiers: {s: [m]}\ndeployments: {m: {recipe: bundled-large}}\n")
    assert main(["prices", "hosted", "--config", str(config)]) == 1
    add_hours(
        tmp_path / "var" / "headgate-engine-hours.db",
        datetime.now(UTC),
        {"m": EngineCost(USED, 40_000_000, 30_000_000)},
    )
    capsys.readouterr()
    assert main(["prices", "hosted", "--config", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "0.030000" in shown
    assert "2.00" in shown
    assert main(["prices", "hosted", "--config", str(config), "--json"]) == 0
    assert '"idle_nano_usd": 30000000' in capsys.readouterr().out
