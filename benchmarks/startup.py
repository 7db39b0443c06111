"""How soon after `headgate serve` requests are answered: with a remote tier, and with both bundled tiers.

    python -m benchmarks.startup --rounds 5 --json benchmarks/results/startup.json

`remote`: until the first answered chat request, and until the encoder answers, which only the semantic look-up needs.
`bundled`: the same, and until every hosted tier is ready. Seconds are from the start of the process; CPU seconds are
those of the gateway's processes until then, which other work on the machine changes less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import httpx
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.gateway_overhead import hardware
from benchmarks.overhead_targets import upstream
from benchmarks.process_cost import cpu_us, with_children
from tests.e2e.gateway_process import HEADGATE, headgate, stop, write_configuration
from tests.upstream.process import unused_port

LIMIT_S = 60.0
POLL_S = 0.01
SHARED = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
tiers: TIERS
deployments:
  minilm: {backend: encoder, price: {input_usd_per_m: "0", output_usd_per_m: "0"}}
"""
REMOTE = SHARED.replace("TIERS", "{small: [plain]}") + (
    "  plain: {backend: remote, base_url: http://127.0.0.1:UPSTREAM/v1, model: plain, "
    'price: {input_usd_per_m: "0.15", output_usd_per_m: "0.60"}}\nrouter: {pair: general}\n'
)
BUNDLED = SHARED.replace("TIERS", "{small: [one], large: [two]}") + (
    "  one: {recipe: bundled-small-int4}\n  two: {recipe: bundled-large}\nrouter: {pair: bundled}\n"
)
Figures = dict[str, float]


def measured(folder: Path, operator: str, *, hosts: bool) -> Figures:
    """Start once and return when what was ready, in seconds and CPU seconds since the start."""
    write_configuration(folder, operator, {"acme": "tenant: acme\ndeployments: [minilm]\n"})
    key = headgate("keys", "create", "--tenant", "acme", folder=folder).stdout.strip()
    port = unused_port()
    command = [*HEADGATE, "serve", "--port", str(port), "--admin-port", "0"]
    began_s = time.perf_counter()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    figures: Figures = {}

    def note(name: str, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if time.perf_counter() - began_s > LIMIT_S or process.poll() is not None:
                raise RuntimeError(f"{name}: not in time\n{(folder / 'log').read_text()[-2000:]}")
            time.sleep(POLL_S)
        figures[f"{name}_s"] = time.perf_counter() - began_s
        figures[f"{name}_cpu_s"] = cpu_us(with_children(process.pid)) / 1e6

    authorization = {"authorization": f"Bearer {key}"}
    try:
        with httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=authorization, trust_env=False, verify=False, timeout=LIMIT_S
        ) as client:
            note("listening", lambda: _status(client, "/healthz") == httpx.codes.OK)
            chat = {"model": "small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
            note("first_answer", lambda: _status(client, "/v1/chat/completions", chat) == httpx.codes.OK)
            if hosts:
                note("tiers", lambda: _status(client, "/readyz") == httpx.codes.OK)
            embedding = {"model": "minilm", "input": "hi"}
            note("encoder", lambda: _status(client, "/v1/embeddings", embedding) == httpx.codes.OK)
    finally:
        stop(process)
    return figures


def _status(client: httpx.Client, path: str, body: Mapping[str, object] | None = None) -> int:
    with suppress(httpx.TransportError):
        return (client.get(path) if body is None else client.post(path, json=body)).status_code
    return 0


def rounds(count: int, only: str | None) -> dict[str, list[Figures]]:
    """Measure both configurations `count` times, one after the other."""
    results: dict[str, list[Figures]] = {}
    with tempfile.TemporaryDirectory(prefix="startup-") as temporary:
        port, folder = unused_port(), Path(temporary)
        with upstream(port, folder):
            for n in track(range(count), "Starting", console=Console(stderr=True)):
                for name, operator in (("remote", REMOTE.replace("UPSTREAM", str(port))), ("bundled", BUNDLED)):
                    if only in (None, name):
                        one = measured(folder / f"{name}-{n}", operator, hosts=name == "bundled")
                        results.setdefault(name, []).append(one)
    return results


def medians(results: dict[str, list[Figures]]) -> dict[str, Figures]:
    """Return the median of each figure."""
    return {
        name: {key: round(statistics.median(one[key] for one in each), 3) for key in each[0]}
        for name, each in results.items()
    }


def main() -> None:
    """Run, print a table and write the JSON."""
    parser = argparse.ArgumentParser(prog="startup", description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=("remote", "bundled"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    results = rounds(options.rounds, options.only)
    told = medians(results)
    table = Table("configuration", "what", "seconds", "CPU seconds", title=f"Medians of {options.rounds} starts")
    for name, figures in told.items():
        for key in (key for key in figures if not key.endswith("_cpu_s")):
            what = key.removesuffix("_s")
            table.add_row(name, what.replace("_", " "), f"{figures[key]:.2f}", f"{figures[f'{what}_cpu_s']:.2f}")
    Console().print(table)
    if options.json is not None:
        report = {
            "benchmark": "startup",
            "command": f"python -m benchmarks.startup --rounds {options.rounds}",
            "measured_at": time.strftime("%Y-%m-%d", time.gmtime()),
            "hardware": hardware(),
            "load_average": round(os.getloadavg()[0], 1),
            "python": sys.version.split()[0],
            "medians": told,
            "rounds": {
                name: [{key: round(v, 3) for key, v in one.items()} for one in each] for name, each in results.items()
            },
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
