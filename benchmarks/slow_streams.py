"""A thousand concurrent slow streams through one gateway: memory, frames that stall, and readers that do not read.

    python -m benchmarks.slow_streams --json benchmarks/results/slow_streams.json

The scripted upstream sends each stream one frame per second. The same client reads them first directly, then through a
gateway process, then through it while further clients ask for long answers and stop reading after the first frame. A
frame's delay is how much later it came after the stream's previous one than the upstream's interval; what the machine
and the client add is in the direct run too. A Nagle stall would delay every frame by some 40 ms.
"""

import argparse
import asyncio
import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks.latency_run import Row, deployment, keep, show, start_gateway
from benchmarks.load_client import Result, ask, percentile
from benchmarks.process_cost import cpu_us, rss_mib
from tests.e2e.gateway_process import RunningGateway
from tests.upstream.process import RunningUpstream, run_upstream

GAP_MS = 1_000.0
STALL_MS = 40.0
FLOOD = "n=60000"


async def streams(base_url: str, key: str, count: int, ramp_s: float) -> list[Result]:
    """Open `count` streams spread over `ramp_s` seconds and read them to their ends."""

    async def one(n: int) -> Result:
        await asyncio.sleep(n * ramp_s / count)
        return await ask(base_url, key, "one", f"stream {n}")

    return await asyncio.gather(*(one(n) for n in range(count)))


async def watched(pid: int, samples: list[float]) -> None:
    """Note the memory of a process every second, for ever."""
    while True:
        samples.append(rss_mib([pid]))
        await asyncio.sleep(1.0)


async def slow_readers(gateway: RunningGateway, key: str, count: int, seconds: float) -> None:
    """Ask for long answers and read nothing after their first frame."""
    await asyncio.gather(*(ask(gateway.base_url, key, "flood", f"flood {n}", pause_s=seconds) for n in range(count)))


def row_of(run: str, results: list[Result], samples: list[float], used_us: float) -> Row:
    """Return the figures of one run."""
    delays = [
        max(0.0, (later - earlier) * 1000 - GAP_MS)
        for one in results
        for earlier, later in zip(one.frames_s, one.frames_s[1:], strict=False)
    ]
    full = samples[len(samples) // 4 : -2] or samples
    return {
        "run": run,
        "streams": len(results),
        "complete": sum(one.is_done for one in results),
        "frames": len(delays),
        "delay_p50_ms": percentile(delays, 0.5),
        "delay_p99_ms": percentile(delays, 0.99),
        "delayed_40_ms_ratio": round(sum(delay >= STALL_MS for delay in delays) / max(1, len(delays)), 5),
        "rss_mib_when_full": round(statistics.mean(full[: len(full) // 2 or 1]), 1) if samples else None,
        "rss_mib_at_end": round(statistics.mean(full[len(full) // 2 :]), 1) if samples else None,
        "gateway_cpu_us_per_frame": round(used_us / len(delays), 1) if used_us and delays else None,
    }


async def run(count: int, frames: int, readers: int) -> list[Row]:
    """Do the three runs."""
    with ExitStack() as stack:
        upstream: RunningUpstream = stack.enter_context(run_upstream(f"n={frames};gap={GAP_MS:g}"))
        entries = {"one": deployment(upstream.base_url), "flood": deployment(upstream.base_url, f"m;{FLOOD}")}
        tiers = {"small": ["one"], "large": ["flood"]}
        gateway = start_gateway(stack, tiers, entries, {"acme": "deployments: [one, flood]"})
        key, pid, ramp_s = gateway.key("acme"), gateway.process.pid, max(5.0, count / 100)
        rows = [row_of("direct", await streams(upstream.base_url, key, count, ramp_s), [], 0.0)]
        for name, slow in (("gateway", 0), ("gateway, slow readers beside", readers)):
            samples: list[float] = []
            watching = asyncio.create_task(watched(pid, samples))
            before_us, began_s = cpu_us([pid]), time.monotonic()
            flooding = asyncio.create_task(slow_readers(gateway, key, slow, ramp_s + frames * GAP_MS / 1000))
            results = await streams(gateway.base_url, key, count, ramp_s)
            watching.cancel()
            await flooding
            rows.append(row_of(name, results, samples, cpu_us([pid]) - before_us))
            rows[-1]["seconds"] = round(time.monotonic() - began_s, 1)
        return rows


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="slow_streams", description=__doc__.splitlines()[0])
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--frames", type=int, default=20, help="frames of each stream, one a second")
    parser.add_argument("--slow-readers", type=int, default=20)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = asyncio.run(run(options.streams, options.frames, options.slow_readers))
    show("Slow streams", rows)
    keep(options.json, "slow_streams", f"--streams {options.streams} --frames {options.frames}", {}, rows)


if __name__ == "__main__":
    main()
