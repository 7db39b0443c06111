"""The first worker's answer to the others about its engines, which it keeps running while they are in use."""

from contextlib import ExitStack

from gateway.hosting.deployments import Hosting, readiness_of
from gateway.hosting.elsewhere import EngineNow, Report

Held = dict[tuple[str, str], ExitStack]


class EngineDesk:
    """Takes reports and tells; a worker's leases hold until it, or its successor, reports otherwise."""

    def __init__(self, hosting: Hosting) -> None:
        self._hosting = hosting
        self._held: dict[int, Held] = {}

    def tell(self, report: Report) -> dict[str, EngineNow]:
        """Act on a report, and return every engine as it is now."""
        engines = self._hosting.supervisors
        for name in report.wanted:
            if name in engines:
                self._hosting.want(name)
        self._hold(self._held.setdefault(report.worker, {}), report)
        return {
            name: EngineNow(readiness_of(engine), engine.base_url, self._hosting.retry_after_s(name))
            for name, engine in engines.items()
        }

    def _hold(self, held: Held, report: Report) -> None:
        """Hold what is in use, and let go of what is not; of a process that was replaced, only what is held already."""
        used = {(name, url) for name, counts in report.under_way.items() for url, count in counts.items() if count}
        for place in held.keys() - used:
            held.pop(place).close()
        for name, url in used - held.keys():
            engine = self._hosting.supervisors.get(name)
            if engine is not None and engine.base_url == url:
                held[name, url] = stack = ExitStack()
                stack.enter_context(engine.leases.taken())
