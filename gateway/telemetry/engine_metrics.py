"""The hosted engines in `/metrics`: their states, failures and restarts, read when somebody asks."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from backends.engines.engine_state import EngineState
from backends.engines.supervisor import Supervisor
from core.money import NANO_PER_USD
from gateway.hosting.engine_hours import EngineCost
from gateway.telemetry.families import Family

STATE = Family("gauge", "engine_state", "1 for the state an engine is in.", ("engine", "state"))
FAILURES = Family("gauge", "engine_failures", "Failures in a row; rising is a crash loop.", ("engine",))
RESTARTS = Family("counter", "engine_restarts", "Starts after the first one.", ("engine",))
REQUESTS = Family("gauge", "engine_requests", "Requests under way on an engine.", ("engine",))
UP = Family("counter", "engine_up_seconds", "Seconds in which an engine held memory.", ("engine",))
BUSY = Family("counter", "engine_busy_seconds", "Seconds in which requests were under way.", ("engine",))
COST = Family(
    "counter", "engine_cost_usd", "`marginal` of its tokens; of its share of the hour `held`, and of that `idle`.",
    ("engine", "kind"),
)  # fmt: skip
FAMILIES = (STATE, FAILURES, RESTARTS, REQUESTS, UP, BUSY, COST)


class EngineMetrics(Collector):
    """Collects from the supervisors; engines are named by their deployment."""

    def __init__(self, supervisors: Callable[[], Mapping[str, Supervisor]], cost: Callable[[str], EngineCost]) -> None:
        self._supervisors = supervisors
        self._cost = cost

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        state, failures, restarts, requests = STATE.gauge(), FAILURES.gauge(), RESTARTS.counter(), REQUESTS.gauge()
        for name, engine in self._supervisors().items():
            for one in EngineState:
                state.add_metric((name, one.value), float(engine.state is one))
            failures.add_metric((name,), engine.failures)
            restarts.add_metric((name,), engine.restarts)
            requests.add_metric((name,), engine.requests)
        yield from (state, failures, restarts, requests)
        yield from self._costs()

    def _costs(self) -> Iterator[Metric]:
        up, busy, cost = UP.counter(), BUSY.counter(), COST.counter()
        for name in self._supervisors():
            found = self._cost(name)
            up.add_metric((name,), found.use.up_s)
            busy.add_metric((name,), found.use.busy_s)
            amounts = {
                "marginal": found.use.marginal_nano_usd,
                "held": found.held_nano_usd,
                "idle": found.idle_nano_usd,
            }
            for kind, nano_usd in amounts.items():
                if nano_usd is not None:
                    cost.add_metric((name, kind), nano_usd / NANO_PER_USD)
        yield from (up, busy, cost)
