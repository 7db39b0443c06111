"""The hosted engines in `/metrics`: their states, failures and restarts, read when somebody asks."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from backends.engines.engine_state import EngineState
from backends.engines.supervisor import Supervisor

LABELS = ("engine",)


class EngineMetrics(Collector):
    """Collects from the supervisors; engines are named by their deployment."""

    def __init__(self, supervisors: Callable[[], Mapping[str, Supervisor]]) -> None:
        self._supervisors = supervisors

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        engines = self._supervisors()
        state = GaugeMetricFamily(
            "headgate_engine_state", "1 for the state an engine is in.", labels=("engine", "state")
        )
        failures = GaugeMetricFamily(
            "headgate_engine_failures", "Failures in a row; rising is a crash loop.", labels=LABELS
        )
        restarts = CounterMetricFamily("headgate_engine_restarts", "Starts after the first one.", labels=LABELS)
        requests = GaugeMetricFamily("headgate_engine_requests", "Requests under way on an engine.", labels=LABELS)
        for name, engine in engines.items():
            for one in EngineState:
                state.add_metric((name, one.value), float(engine.state is one))
            failures.add_metric((name,), engine.failures)
            restarts.add_metric((name,), engine.restarts)
            requests.add_metric((name,), engine.leases.count)
        yield from (state, failures, restarts, requests)
