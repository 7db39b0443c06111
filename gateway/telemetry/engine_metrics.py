"""The hosted engines in `/metrics`: their states, failures and restarts, read when somebody asks."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from backends.engines.engine_state import EngineState
from backends.engines.supervisor import Supervisor
from gateway.telemetry.families import Family

STATE = Family("gauge", "engine_state", "1 for the state an engine is in.", ("engine", "state"))
FAILURES = Family("gauge", "engine_failures", "Failures in a row; rising is a crash loop.", ("engine",))
RESTARTS = Family("counter", "engine_restarts", "Starts after the first one.", ("engine",))
REQUESTS = Family("gauge", "engine_requests", "Requests under way on an engine.", ("engine",))
FAMILIES = (STATE, FAILURES, RESTARTS, REQUESTS)


class EngineMetrics(Collector):
    """Collects from the supervisors; engines are named by their deployment."""

    def __init__(self, supervisors: Callable[[], Mapping[str, Supervisor]]) -> None:
        self._supervisors = supervisors

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
