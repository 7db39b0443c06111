"""Whether anything is left behind by long work: memory, connections, tasks, holds, file descriptors.

    python -m benchmarks.soak --minutes 30 --json benchmarks/results/soak.json

Plain requests, streams, repeated prompts and clients that go away in the middle of a stream go to one gateway on Redis
at 70 % of what it was seen to do before, while policies are read again every 20 seconds and Redis is killed and started
again every minute. Every five seconds memory and descriptors are read; before and after, at rest, everything that is
alive is counted. Gateway, upstream and load may share one core (`taskset -c 1`); capacity is then that of all three.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_overhead import hardware
from benchmarks.overhead_targets import upstream
from benchmarks.process_cost import cpu_us, rss_mib
from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration
from tests.redis_server import RedisServer
from tests.upstream.process import unused_port

SHARE = 0.7
CALLERS = 24
CAPACITY_S = 15.0
WARM_UP_SHARE = 0.2
SAMPLE_EVERY_S = 5.0
RELOAD_EVERY_S = 20.0
REDIS_EVERY_S = 60.0
REDIS_AWAY_S = 2.0
REST_S = 20.0
LIMIT_S = 30.0
KINDS = {"plain": 0.70, "repeated": 0.15, "stream": 0.10, "cut": 0.05}
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


@dataclass(slots=True)
class Load:
    """Callers that share one pace; `rate_per_s` is None for as fast as they can."""

    port: int
    key: str
    rate_per_s: float | None = None
    asked: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    _next_s: float = 0.0

    async def run(self, seconds: float) -> float:
        """Ask for so long; returns the requests per second."""
        asked, began_s = self.asked, time.monotonic()
        self._next_s = began_s
        await asyncio.gather(*(self._call(began_s + seconds) for _ in range(CALLERS)))
        return (self.asked - asked) / (time.monotonic() - began_s)

    async def _call(self, until_s: float) -> None:
        kinds, weights = list(KINDS), list(KINDS.values())
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while time.monotonic() < until_s:
            await self._turn()
            kind = random.choices(kinds, weights)[0]
            self.asked += 1
            try:
                if connection is None:
                    connection = await asyncio.open_connection("127.0.0.1", self.port)
                status = await asyncio.wait_for(self._ask(kind, *connection), LIMIT_S)
                self.outcomes[f"{kind} {status}"] += 1
                is_kept = kind != "cut"
            except (OSError, EOFError, TimeoutError, ValueError) as problem:
                self.outcomes[f"{kind} {type(problem).__name__}"] += 1
                is_kept = False
            if not is_kept and connection is not None:
                connection[1].transport.abort()
                connection = None
        if connection is not None:
            connection[1].close()

    async def _turn(self) -> None:
        if self.rate_per_s is None:
            return
        self._next_s += 1 / self.rate_per_s
        wait_s = self._next_s - time.monotonic()
        if wait_s < -1.0:
            self._next_s = time.monotonic()  # what was missed while the machine was busy is not made up for
        await asyncio.sleep(max(0.0, wait_s))

    async def _ask(self, kind: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> int:
        text = f"Question {random.randrange(100)}" if kind == "repeated" else f"Question {random.random()}"
        streams = kind in ("stream", "cut")
        asked = {"model": "burst" if streams else "small", "messages": [{"role": "user", "content": text}]}
        body = msgspec.json.encode(asked | ({"stream": True} if streams else {}))
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        status = int(answer.split(b" ", 2)[1])
        if kind == "cut":
            await reader.readuntil(b"data:")
        elif (length := re.search(rb"content-length: (\d+)", answer.lower())) is not None:
            await reader.readexactly(int(length[1]))
        else:
            await reader.readuntil(b"\r\n0\r\n\r\n")
        return status


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
        self._reloads = 0
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
        (self._gateway.folder / "tenants" / "acme.yaml").write_text(TENANT.format(total_ms=20_000 + self.reloads))
        self._gateway.process.send_signal(signal.SIGHUP)

    async def restart_redis(self) -> None:
        """Kill Redis and start it again on its data."""
        self.restarts += 1
        await asyncio.to_thread(self._redis.kill)
        await asyncio.sleep(REDIS_AWAY_S)
        await asyncio.to_thread(self._redis.start)

    async def at_rest(self) -> dict[str, object]:
        """Wait until nothing can be under way any more, and count what is alive."""
        await asyncio.sleep(REST_S)
        self._census.unlink(missing_ok=True)
        self._gateway.process.send_signal(signal.SIGUSR2)
        while not self._census.exists():  # noqa: ASYNC110 - another process writes it
            await asyncio.sleep(0.05)
        told: dict[str, object] = json.loads(self._census.read_text())
        page = await asyncio.to_thread(self._gateway.metrics)
        pid = self._gateway.process.pid
        held = [float(value) for value in re.findall(r"^headgate_budget_reserved_usd\{.*\} (\S+)$", page, re.MULTILINE)]
        flights = [float(value) for value in re.findall(r"^headgate_in_flight\{.*\} (\S+)$", page, re.MULTILINE)]
        links = [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd") if _is_open(pid, name)]
        return told | {
            "held_usd": sum(held),
            "in_flight": sum(flights),
            "descriptors": len(links),
            "sockets": sum(link.startswith("socket:") for link in links),
            "rss_mib": round(rss_mib([pid]), 2),
        }


def _is_open(pid: int, name: str) -> bool:
    with suppress(OSError):
        return bool(os.readlink(f"/proc/{pid}/fd/{name}"))
    return False


def flatness(samples: list[dict[str, float]]) -> dict[str, float]:
    """Return memory after the warm-up: the medians of the first and last fifth of the samples, and their ratio."""
    warm = samples[int(len(samples) * WARM_UP_SHARE) :]
    fifth = max(1, len(warm) // 5)
    first, last = (statistics.median(one["rss_mib"] for one in part) for part in (warm[:fifth], warm[-fifth:]))
    return {"first_rss_mib": first, "last_rss_mib": last, "growth_ratio": round(last / first, 4)}


async def soaked(soak: Soak, load: Load, minutes: float, console: Console) -> dict[str, object]:
    """Find the capacity, rest, work, rest, and return what was found."""
    await load.run(5.0)
    capacity = await load.run(CAPACITY_S)
    load.rate_per_s = SHARE * capacity
    load.outcomes.clear()
    before = await soak.at_rest()
    console.print(f"{capacity:.0f} requests/s at most; {minutes:g} minutes at {load.rate_per_s:.0f}/s")
    works = ((SAMPLE_EVERY_S, soak.sample), (RELOAD_EVERY_S, soak.reload), (REDIS_EVERY_S, soak.restart_redis))
    async with beside(*works):
        rate = await load.run(minutes * 60)
    after = await soak.at_rest()
    return {
        "capacity_per_s": round(capacity, 1),
        "rate_per_s": round(rate, 1),
        "minutes": minutes,
        "policy_reloads": soak.reloads,
        "redis_restarts": soak.restarts,
        "outcomes": dict(sorted(load.outcomes.items())),
        "memory": flatness(soak.samples),
        "before": before,
        "after": after,
        "samples": soak.samples[:: max(1, len(soak.samples) // 60)],
    }


def measured(minutes: float, console: Console) -> dict[str, object]:
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
                return asyncio.run(soaked(Soak(gateway, redis, census), load, minutes, console))
    finally:
        redis.close()


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="soak", description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    console = Console()
    result = measured(options.minutes, console)
    before, after = result["before"], result["after"]
    assert isinstance(before, dict)
    assert isinstance(after, dict)
    table = Table("at rest", "before", "after", title=f"{options.minutes:g} minutes at {result['rate_per_s']}/s")
    for key in ("tasks", "threads", "objects", "held_usd", "in_flight", "descriptors", "sockets", "rss_mib"):
        table.add_row(key, str(before[key]), str(after[key]))
    console.print(table)
    console.print(result["memory"], result["outcomes"])
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


if __name__ == "__main__":
    main()
