"""Case of a whole gateway: what an exact and a semantic hit take inside it, by its own header and by its CPU time."""

import argparse
import statistics
import tempfile
from pathlib import Path

import httpx

from benchmarks.answering_upstream import running_upstream
from benchmarks.cache_speed_data import twenty_token_pairs
from benchmarks.cache_speed_timing import Case
from benchmarks.process_cost import cpu_us, with_children
from tests.e2e.gateway_process import REMOTE, RunningGateway, run_gateway, write_configuration


def gateway(options: argparse.Namespace) -> Case:
    """Ask a gateway of its own the same and other wordings of questions whose answers it has, over one connection."""
    with tempfile.TemporaryDirectory() as name, running_upstream() as base_url:
        folder, pairs = Path(name), twenty_token_pairs(options.pairs)
        operator = REMOTE.format(base_url=base_url, small="counting", large="counting")
        write_configuration(folder, operator, {"t0": "tenant: t0\n"})
        with run_gateway(folder) as running, client_of(running) as client:
            wait_for_encoder(client)
            kept = [text for text, _ in pairs]
            asked = {"miss": kept, "exact_hit": kept, "semantic_hit": [text for _, text in pairs]}
            return {f"{name}_in_gateway": _asked(running, client, texts, name) for name, texts in asked.items()}


def _asked(running: RunningGateway, client: httpx.Client, texts: list[str], wanted: str) -> Case:
    """Return the median of the time that the header tells, over outcomes as wanted, and the CPU time per request."""
    pids = with_children(running.process.pid)
    before_us = cpu_us(pids)
    answers = [_ask(client, text) for text in texts]
    used_us = cpu_us(pids) - before_us
    found = [one for one in answers if one.headers["x-headgate-cache"] == wanted.removesuffix("_hit")]
    overheads = sorted(float(one.headers["x-headgate-overhead-ms"]) for one in found)
    return {
        "as_wanted_ratio": len(found) / len(texts),
        "wall_p50": round(statistics.median(overheads), 3),
        "wall_p95": overheads[int(0.95 * (len(overheads) - 1))],
        "cpu_mean": round(used_us / 1_000 / len(texts), 3),
    }


def _ask(client: httpx.Client, text: str) -> httpx.Response:
    body = {"model": "large", "messages": [{"role": "user", "content": text}]}
    return client.post("/v1/chat/completions", json=body).raise_for_status()


def client_of(running: RunningGateway) -> httpx.Client:
    """Return a client with a key of tenant `t0`."""
    headers = {"authorization": f"Bearer {running.key('t0')}"}
    return httpx.Client(base_url=running.url, headers=headers, timeout=60, trust_env=False)


def wait_for_encoder(client: httpx.Client) -> None:
    """Ask two wordings of one question until the second is a semantic hit; until then the encoder is loading."""
    outcome, number = "", 0
    while outcome != "semantic":
        number += 1
        _ask(client, f"What is the capital of island {number}?")
        outcome = _ask(client, f"Which city is the capital of island {number}?").headers["x-headgate-cache"]
