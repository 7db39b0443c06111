"""Whether anything is left behind by long work: memory, connections, tasks, holds, file descriptors.

    python -m benchmarks.soak --minutes 30 --json benchmarks/results/soak.json

Plain requests, streams, repeated prompts and clients that go away in the middle of a stream go to one gateway on Redis,
while policies are read again every 20 seconds and Redis is killed and started again about every minute. First as fast
as the gateway can, until everything that it remembers up to a bound is full (the last 100,000 settled holds take
longest): what it holds more after that is a leak. Then at 70 % of what it was seen to do, which is the work that is
judged. Every five seconds memory and descriptors are read; before and after the work, at rest, everything that is alive
is counted. Gateway, upstream and load may share one core (`taskset -c 1`); capacity is then that of all three.

Ends with 1 when anything was left behind, or resident memory grew by more than 2 % of itself.
"""

import argparse
import asyncio
import json
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.gateway_overhead import hardware
from benchmarks.overhead_targets import upstream
from benchmarks.process_cost import cpu_us, rss_mib
from benchmarks.soak_load import Load
from benchmarks.soak_verdicts import memory_of, thinned, told, verdicts_of
from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration
from tests.redis_server import RedisServer
from tests.upstream.process import unused_port

SHARE = 0.7
CAPACITY_S = 15.0
WARM_UP_REQUESTS = 125_000
"""Of which 85 % settle a hold, and 15 % are hits, of which 10,000 are remembered."""
WARM_UP_MOST_S = 240.0
CENSUS_S = 30.0
SAMPLE_EVERY_S = 5.0
RELOAD_EVERY_S = 20.0
REDIS_EVERY_S = 59.0
REDIS_AWAY_S = 2.0
REST_S = 35.0
"""Idle connections to upstreams are closed after 30."""
OPERATOR = """
listen: 127.0.0.1:8080
admin: {{listen: 127.0.0.1:8081, key_file: var/admin.key}}
state: {state}
policies: tenants
router: {{pair: general}}
tiers: {{small: [plain, burst]}}
deployments:
  plain: {{backend: remote, base_url: http://127.0.0.1:{port}/v1, model: plain, price: {price}}}
  burst: {{backend: remote, base_url: http://127.0.0.1:{port}/v1, model: burst, price: {price}}}
"""
PRICE = '{input_usd_per_m: "0.15", output_usd_per_m: "0.60"}'
TENANT = """
tenant: acme
budgets: [{{window: month, limit_usd: "9000000"}}]
limits: {{requests_per_minute: 100000000, concurrency: 10000}}
sla: {{small: {{total_ms: {total_ms}}}}}
routing: {{rules: [{{name: burst, when: {{models: [burst]}}, use: [burst]}}]}}
models: {{burst: auto}}
deployments: [plain]
on_store_outage: open
cache: {{semantic: false, ttl_s: 60}}
"""


async def every(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    """Do something again and again until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        await act()


@asynccontextmanager
async def beside(*works: tuple[float, Callable[[], Awaitable[None]]]) -> AsyncIterator[None]:
    """Do every work at its times for as long as the block lasts."""
    tasks = [asyncio.create_task(every(*work)) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        broken = [one for one in ended if isinstance(one, Exception)]
        if broken:
            raise broken[0]


class Soak:
    """One gateway, its Redis, and what is read of them."""

    def __init__(self, gateway: RunningGateway, redis: RedisServer, census: Path) -> None:
        self._gateway = gateway
        self._redis = redis
        self._census = census
        self._began_s = time.monotonic()
        self._written = 0
        self.samples: list[dict[str, float]] = []
        self.reloads = self.restarts = 0

    async def sample(self) -> None:
        """Read memory, descriptors and CPU time."""
        pid = self._gateway.process.pid
        self.samples.append(
            {
                "at_s": round(time.monotonic() - self._began_s, 1),
                "rss_mib": round(rss_mib([pid]), 2),
                "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
                "cpu_s": round(cpu_us([pid]) / 1e6, 2),
            }
        )

    async def reload(self) -> None:
        """Change the tenant's policy."""
        self.reloads += 1
        self._written += 1
        (self._gateway.folder / "tenants" / "acme.yaml").write_text(TENANT.format(total_ms=20_000 + self._written))
        self._gateway.process.send_signal(signal.SIGHUP)

    async def restart_redis(self) -> None:
        """Kill Redis and start it again on its data, also when the work ends meanwhile."""
        self.restarts += 1
        self._redis.kill()
        try:
            await asyncio.sleep(REDIS_AWAY_S)
        except asyncio.CancelledError:
            self._redis.start()
            raise
        await asyncio.to_thread(self._redis.start)

    async def at_rest(self) -> dict[str, object]:
        """Wait until nothing can be under way any more, and count what is alive."""
        await asyncio.sleep(REST_S)
        self._census.unlink(missing_ok=True)
        self._gateway.process.send_signal(signal.SIGUSR2)
        async with asyncio.timeout(CENSUS_S):
            while not self._census.exists():  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.05)
        told: dict[str, object] = json.loads(self._census.read_text())
        pid = self._gateway.process.pid
        links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd") if _is_open(pid, name)]
        stores = unix_sockets(links)
        page = await asyncio.to_thread(self._gateway.metrics)  # after looking: its own connection may still be open
        held = [float(value) for value in re.findall(r"^headgate_budget_reserved_usd\{.*\} (\S+)$", page, re.MULTILINE)]
        flights = [float(value) for value in re.findall(r"^headgate_in_flight\{.*\} (\S+)$", page, re.MULTILINE)]
        return told | {
            "held_usd": sum(held),
            "in_flight": sum(flights),
            "descriptors": len(links) - stores,
            "sockets": sum(link.startswith("socket:") for link in links) - stores,
            "store_sockets": stores,
            "rss_mib": round(rss_mib([pid]), 2),
        }


def unix_sockets(links: list[str]) -> int:
    """Return how many of a process's descriptors are unix sockets, which is how this gateway talks to Redis."""
    known = {line.split()[6] for line in Path("/proc/net/unix").read_text().splitlines()[1:]}
    return sum(link.removeprefix("socket:[").removesuffix("]") in known for link in links)


def _is_open(pid: int, name: str) -> bool:
    with suppress(OSError):
        return bool(os.readlink(f"/proc/{pid}/fd/{name}"))
    return False


async def soaked(soak: Soak, load: Load, minutes: float, warm_up: int, console: Console) -> dict[str, object]:
    """Fill what is bounded, find the capacity, rest, work, rest, and return what was found."""
    works = ((SAMPLE_EVERY_S, soak.sample), (RELOAD_EVERY_S, soak.reload), (REDIS_EVERY_S, soak.restart_redis))
    async with beside(*works):
        await load.run(WARM_UP_MOST_S, warm_up)
    filled_with = load.asked
    capacity = await load.run(CAPACITY_S)
    warming, soak.samples = soak.samples, []
    load.rate_per_s = SHARE * capacity
    load.outcomes.clear()
    soak.reloads = soak.restarts = 0
    before = await soak.at_rest()
    console.print(
        f"{filled_with} requests to warm up, {capacity:.0f}/s at most; {minutes:g} minutes at {load.rate_per_s:.0f}/s"
    )
    async with beside(*works):
        rate = await load.run(minutes * 60)
    after = await soak.at_rest()
    memory = memory_of(soak.samples)
    return {
        "warm_up_requests": filled_with,
        "capacity_per_s": round(capacity, 1),
        "rate_per_s": round(rate, 1),
        "minutes": minutes,
        "policy_reloads": soak.reloads,
        "redis_restarts": soak.restarts,
        "outcomes": dict(sorted(load.outcomes.items())),
        **told(memory, verdicts_of(memory, before, after)),
        "before": before,
        "after": after,
        "warm_up_samples": thinned(warming, 30),
        "samples": thinned(soak.samples),
    }


def measured(minutes: float, warm_up: int, console: Console) -> dict[str, Any]:
    """Start everything, soak, and stop everything."""
    redis = RedisServer()
    redis.start()
    try:
        with tempfile.TemporaryDirectory(prefix="soak-") as temporary:
            folder, port, census = Path(temporary), unused_port(), Path(temporary) / "census.json"
            operator = OPERATOR.format(state=redis.url, port=port, price=PRICE)
            write_configuration(folder, operator, {"acme": TENANT.format(total_ms=20_000)})
            command = (sys.executable, "-m", "benchmarks.soak_gateway", str(census))
            os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])
            with upstream(port, folder), run_gateway(folder, command=command) as gateway:
                load = Load(int(gateway.url.rpartition(":")[2]), gateway.key("acme"))
                return asyncio.run(soaked(Soak(gateway, redis, census), load, minutes, warm_up, console))
    finally:
        redis.close()


def shown(result: dict[str, Any], console: Console) -> bool:
    """Print the verdicts and the course of memory; returns whether all is as it should be."""
    table = Table("", "before", "after", "", title=f"{result['minutes']:g} minutes at {result['rate_per_s']}/s")
    for one in result["verdicts"]:
        table.add_row(one["item"], f"{one['before']:g}", f"{one['after']:g}", "holds" if one["holds"] else "FAILS")
    console.print(table)
    course = Table("minute", "RSS MiB", "descriptors")
    for at in thinned(result["samples"], 12):
        course.add_row(f"{at['at_s'] / 60:.1f}", f"{at['rss_mib']:.1f}", f"{at['descriptors']:g}")
    console.print(course, result["memory"], result["outcomes"])
    return all(one["holds"] for one in result["verdicts"])


def main() -> int:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--warm-up", type=int, default=WARM_UP_REQUESTS, metavar="N", help="requests asked before")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    result = measured(options.minutes, options.warm_up, console)
    if options.json is not None:
        report = {
            "benchmark": "soak",
            "command": f"python -m benchmarks.soak --minutes {options.minutes:g}",
            "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
            "hardware": hardware(),
            "cores_used": len(os.sched_getaffinity(0)),
            "python": sys.version.split()[0],
            **result,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    return 0 if shown(result, console) else 1


if __name__ == "__main__":
    sys.exit(main())
