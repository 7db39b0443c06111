"""Measure how fast the cache answers, searches, stores and forgets, in one run on one core.

    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/cache_speed.py [--json FILE] [--most 1000000]
        [--gptcache PYTHON] [--redis] [--gpu] [--rounds 5] [--pairs 300] [--only CASE ...]

Each case runs in a process of its own. Times are CPU time of the whole process per operation (so that a busy machine
counts little), and wall time beside it; medians of five rounds, those of the cache and of GPTCache taken in turn.
`--gptcache` names the interpreter of an environment that holds GPTCache beside this project's dependencies (install it
elsewhere: `python -m venv FOLDER`, `FOLDER/bin/pip install gptcache sqlalchemy` and the project's packages on its
path). `--redis` starts a redis-server of its own for the shared store, through redis-py and through the lean connection
of the ledger, and for the time from one replica to the others. `--gpu` puts partitions of 100,000 and more on the GPU
and wants the extra `gpu`; read wall times there. Where no device can be used, `device` says so and the CPU is measured.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.cache_speed_encoder import encoder, together
from benchmarks.cache_speed_gateway import gateway
from benchmarks.cache_speed_index import flat, frontier, partition, scopes
from benchmarks.cache_speed_lookup import growth, lookup, replicas
from benchmarks.cache_speed_timing import Case, medians
from cache.faiss_gpu import gpu_count


def main() -> None:
    options = _options()
    if options.case:
        print(json.dumps(_CASES[options.case](options)))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        report: Case = {"hardware": _hardware(), "command": _command(), "cases": _run_all(options)}
    _show(report["cases"])
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _command() -> str:
    """Return the command without the paths of this machine."""
    words = [Path(word).name if Path(word).is_absolute() else word for word in sys.argv]
    return (
        f"OMP_NUM_THREADS=1 taskset -c {','.join(map(str, sorted(os.sched_getaffinity(0))))} python {' '.join(words)}"
    )


def _run_all(options: argparse.Namespace) -> dict[str, Case]:
    sizes = [size for size in (10_000, 100_000, 1_000_000) if size <= options.most]
    wanted = [("lookup", store) for store in ("sqlite", *(["redis", "redis-lean"] if options.redis else []))]
    wanted += [("gateway", ""), ("encoder", ""), ("together", "16"), ("growth", "")]
    wanted += [("partition", str(size)) for size in sizes] + [("flat", str(size)) for size in sizes]
    wanted += [("frontier", str(sizes[-1])), ("scopes", "100000")] + ([("replicas", "3")] if options.redis else [])
    chosen = options.only or ("in-turn", *_CASES)
    found = _in_turn(options) if "in-turn" in chosen else {}
    for case, argument in wanted:
        if case not in chosen:
            continue
        found[f"{case} {argument}".strip()] = _ran(_command_of(options, case, argument))
    return found


def _in_turn(options: argparse.Namespace) -> dict[str, Case]:
    """Take the cache in memory and GPTCache in turn, and compare them round by round."""
    commands = {"lookup memory": _command_of(options, "lookup", "memory")}
    script = str(Path(__file__).with_name("cache_speed_gptcache.py"))
    for runtime in ("same", "reference") if options.gptcache else ():
        commands[f"gptcache {runtime}"] = [str(options.gptcache), script, str(options.pairs), runtime]
    rounds = [{name: _ran(command) for name, command in commands.items()} for _ in range(options.rounds)]
    found: dict[str, Case] = {}
    for name in commands:
        of_name = [one[name] for one in rounds]
        timed = [key for key, value in of_name[0].items() if isinstance(value, dict)]
        found[name] = of_name[0] | {key: medians([one[key] for one in of_name]) for key in timed}
        ratios = [
            one[name]["semantic_hit_ms"]["cpu_p50"] / one["lookup memory"]["semantic_hit_ms"]["cpu_p50"]
            for one in rounds
        ]
        found[name]["semantic_hit_over_ours"] = round(statistics.median(ratios), 2)
    return found


def _command_of(options: argparse.Namespace, case: str, argument: str) -> list[str]:
    words = [sys.executable, __file__, "--case", case, "--argument", argument, "--folder", str(options.folder)]
    words += ["--most", str(options.most), "--rounds", str(options.rounds), "--pairs", str(options.pairs)]
    return [*words, *(["--gpu"] if options.gpu else [])]


def _show(cases: dict[str, Case]) -> None:
    table = Table("case", "figure", "value", title="CPU ms per operation unless named otherwise; medians")
    for case, figures in cases.items():
        for at, (name, value) in enumerate(figures.items()):
            shown = value.get("cpu_p50", value.get("wall_p50", value)) if isinstance(value, dict) else value
            table.add_row(case if at == 0 else "", name, str(shown))
    Console(width=120).print(table)


def _ran(command: Sequence[str]) -> Case:
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: Case = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def _hardware() -> dict[str, Any]:
    def of(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())
    packages = ("faiss-cpu", "faiss-gpu", "openvino", "redis", "hiredis", "numpy", "sentence-transformers")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "cores_used": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "python": platform.python_version(),
        "gpus_usable": gpu_count(),
        "packages": {name: of(name) for name in packages if of(name)},
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure the cache's speed.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--most", type=int, default=1_000_000)
    parser.add_argument("--gptcache", type=Path)
    parser.add_argument("--redis", action="store_true")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=300, help="questions, each with another wording")
    parser.add_argument("--only", nargs="+", choices=sorted((*_CASES, "in-turn")), help="these cases only")
    parser.add_argument("--case", choices=sorted(_CASES), help=argparse.SUPPRESS)
    parser.add_argument("--argument", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


_CASES: dict[str, Callable[[argparse.Namespace], Case]] = {
    "lookup": lookup,
    "gateway": gateway,
    "growth": growth,
    "encoder": encoder,
    "together": together,
    "partition": partition,
    "frontier": frontier,
    "scopes": scopes,
    "flat": flat,
    "replicas": replicas,
}


if __name__ == "__main__":
    main()
