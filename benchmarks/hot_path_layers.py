"""Where the CPU time of one request goes, layer by layer, in a gateway of production configuration inside this process.

    python -m benchmarks.hot_path_layers --requests 10000 --json benchmarks/results/hot_path_layers.json

Requests go straight to the public application, 64 at a time; sockets to clients and uvicorn are therefore not in it
(`benchmarks.gateway_overhead` has them), the connections to the upstream are. The kernel interrupts the process every
few milliseconds of its CPU time; the innermost of our modules on the stack of the main thread is the layer it counts
for. CPU time is that of threads, so other work on the machine changes it little.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvloop
from litestar.types import HTTPScope, Message, Scope
from rich.console import Console
from rich.table import Table

from benchmarks.gateway_overhead import CONNECTIONS, hardware
from benchmarks.overhead_load import MARK, Aim
from benchmarks.overhead_targets import configure, upstream
from gateway.compose import build
from gateway.heap import collect_rarely
from gateway.running import Gateway
from gateway.serving import SWITCH_S
from gateway.settings.operator import load_settings
from tests.e2e.gateway_process import headgate
from tests.upstream.process import unused_port

SAMPLE_S = 0.001
WARM_UP = 1_000
LAYERS = (
    ("benchmarks/", "this benchmark"),
    ("gateway/wire/", "handler: headers, body, answer"),
    ("gateway/pipeline.py", "pipeline"),
    ("gateway/telemetry/", "record: metrics, logs"),
    ("gateway/trace_draft.py", "record: metrics, logs"),
    ("core/trace.py", "record: metrics, logs"),
    ("gateway/receipts.py", "record: metrics, logs"),
    ("gateway/", "gateway, others"),
    ("policies/access.py", "authenticate"),
    ("policies/keys", "authenticate"),
    ("policies/failures.py", "authenticate"),
    ("policies/resolution.py", "resolve, facts, rules"),
    ("router/facts.py", "resolve, facts, rules"),
    ("router/rules.py", "resolve, facts, rules"),
    ("router/script.py", "resolve, facts, rules"),
    ("policies/admission.py", "admit"),
    ("policies/rates", "admit"),
    ("policies/", "budget: standing, reserve, settle"),
    ("cache/single_flight.py", "identical requests in flight"),
    ("cache/", "cache: keys, look-up, store"),
    ("router/sessions.py", "sessions"),
    ("router/", "classify, plan, control"),
    ("backends/plain_http.py", "transport"),
    ("backends/transport.py", "transport"),
    ("backends/remote.py", "transport"),
    ("backends/registry.py", "registry: snapshot, health, latency"),
    ("backends/latency.py", "registry: snapshot, health, latency"),
    ("backends/quantiles.py", "registry: snapshot, health, latency"),
    ("backends/health.py", "registry: snapshot, health, latency"),
    ("backends/", "dispatch, attempt, relay"),
    ("core/chat.py", "decode, encode"),
    ("core/", "core, others"),
)
ROOT = f"{Path(__file__).resolve().parent.parent}/"


class Sampler:
    """Counts by layer, and by function, what the main thread does each time the signal comes."""

    def __init__(self) -> None:
        self.layers: Counter[str] = Counter()
        self.functions: Counter[str] = Counter()
        self._layer_of: dict[str, str | None] = {}

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Count one moment."""
        while frame is not None:
            layer = self._layer(frame.f_code.co_filename)
            if layer is not None:
                self.layers[layer] += 1
                self.functions[f"{frame.f_code.co_qualname}, {frame.f_code.co_filename.removeprefix(ROOT)}"] += 1
                return
            frame = frame.f_back
        self.layers["event loop, framework"] += 1

    def _layer(self, file: str) -> str | None:
        if file not in self._layer_of:
            ours = file.removeprefix(ROOT) if file.startswith(ROOT) else None
            found = next((layer for begin, layer in LAYERS if ours is not None and ours.startswith(begin)), None)
            self._layer_of[file] = found
        return self._layer_of[file]


class Client:
    """Asks the application itself; every request has a prompt of its own."""

    def __init__(self, gateway: Gateway, aim: Aim, model: str) -> None:
        self._app = gateway.public
        headers = [(name.encode(), value.encode()) for name, value in aim.all_headers().items()]
        self._scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
            "path": "/v1/chat/completions", "raw_path": b"/v1/chat/completions", "query_string": b"", "root_path": "",
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 1), "extensions": {},
            "headers": [(b"host", b"127.0.0.1"), *headers],
        }  # fmt: skip
        self._head, self._tail = aim.body(model).split(MARK.encode())
        self._sent = 0

    async def several(self, count: int) -> None:
        """Send `count` requests, some at a time, each once another one was answered."""
        left = iter(range(count))

        async def some() -> None:
            for _ in left:
                await self._one()

        await asyncio.gather(*(some() for _ in range(min(CONNECTIONS, count))))

    async def _one(self) -> None:
        self._sent += 1
        body = b"%s%d-%d%s" % (self._head, os.getpid(), self._sent, self._tail)
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])
        gone: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        statuses: list[int] = []

        async def receive() -> Any:
            message = next(messages, None)
            return await gone if message is None else message

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        await self._app(cast(Scope, cast(HTTPScope, {**self._scope, "state": {}})), receive, send)
        if statuses != [200]:
            raise RuntimeError(f"answered {statuses}")


async def measured(gateway: Gateway, client: Client, requests: int) -> dict[str, Any]:
    """Return the CPU microseconds of one request, by layer."""
    async with gateway.running():
        await gateway.wait_ready(60.0)
        await client.several(min(WARM_UP, requests))
        sampler = Sampler()
        signal.signal(signal.SIGPROF, sampler)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)
        began_main, began_all = time.thread_time(), time.process_time()
        await client.several(requests)
        main_us, all_us = ((now - began) * 1e6 / requests for now, began in
                           ((time.thread_time(), began_main), (time.process_time(), began_all)))  # fmt: skip
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    share = main_us / sum(sampler.layers.values())
    return {
        "requests": requests,
        "main_thread_us": round(main_us, 1),
        "other_threads_us": round(all_us - main_us, 1),
        "layers_us": {name: round(count * share, 1) for name, count in sampler.layers.most_common()},
        "functions_us": {name: round(count * share, 1) for name, count in sampler.functions.most_common(60)},
    }


Measure = Callable[[Gateway, Client, int], Coroutine[Any, Any, dict[str, Any]]]


def run(model: str, requests: int, measure: Measure = measured) -> dict[str, Any]:
    """Configure a gateway in a folder of its own, and measure it."""
    sys.setswitchinterval(SWITCH_S)
    collect_rarely()
    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="layers-") as temporary:
        folder, port = Path(temporary), unused_port()
        with upstream(port, folder):
            configure(folder / "ours", port)
            key = headgate("keys", "create", "--tenant", "acme", folder=folder / "ours").stdout.strip()
            os.chdir(folder / "ours")
            try:
                gateway = build(load_settings(Path("headgate.yaml")))
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    return runner.run(measure(gateway, Client(gateway, Aim("", key), model), requests))
            finally:
                os.chdir(here)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(prog="hot_path_layers", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--model", default="plain", choices=("plain", "paced", "burst"))
    parser.add_argument("--functions", type=int, default=0, help="print so many functions too")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    figures = run(options.model, options.requests)
    table = Table(title=f"CPU µs of one {options.model} request: {figures['main_thread_us']} in the main thread")
    table.add_column("layer")
    table.add_column("µs", justify="right")
    functions = list(figures["functions_us"].items())[: options.functions]
    for name, us in [*figures["layers_us"].items(), ("other threads", figures["other_threads_us"]), *functions]:
        table.add_row(name, f"{us:.1f}")
    Console().print(table)
    if options.json is not None:
        told = {"benchmark": "hot_path_layers", "model": options.model, "hardware": hardware(),
                "measured_at": time.strftime("%Y-%m-%d", time.gmtime())}  # fmt: skip
        options.json.write_text(json.dumps({**told, **figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
