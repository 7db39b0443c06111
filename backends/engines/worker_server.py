"""Runs a worker process around one engine: a loopback port, the shared HTTP application, a drain on SIGTERM.

The port is bound before the model is loaded, so that a conflict shows at once; running requests get `--drain-timeout`
seconds after SIGTERM. Whatever stops the worker from starting is one line on stderr and exit status 2.
"""

import argparse
import asyncio
import json
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NoReturn

import uvicorn
import uvloop

from backends.engines.generation import TextEngine
from backends.engines.parent import die_with_parent
from backends.engines.worker_app import WorkerApp
from backends.engines.worker_request import Limits

KEEP_ALIVE_S = 75
POLL_S = 0.5
SWITCH_INTERVAL_S = 0.0002
"""A step holds the interpreter lock. With Python's 5 ms a first token waited for the lock until 20 tokens were made:
TTFT 8 to 12 ms at one stream, against 4 ms with this, on the same busy machine."""

Load = Callable[[argparse.Namespace, Limits, asyncio.AbstractEventLoop], AbstractContextManager[TextEngine]]


class CannotLoad(Exception):
    """The weights cannot be loaded; the message is one line with the cause and the mend."""


def run_worker(options: argparse.Namespace, load: Load, *, has_all_controls: bool = True) -> None:
    """Serve until told to stop.

    Args:
        options: parsed by `worker_parser`.
        load: returns the engine; leaving its context stops generating. It may raise `CannotLoad`.
        has_all_controls: whether the engine knows penalties and JSON output.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    bound = _bind(options.port)
    limits = Limits(
        model=options.name,
        context_tokens=_context_tokens(options),
        max_output_tokens=options.max_output_tokens,
        default_temperature=options.default_temperature,
        has_all_controls=has_all_controls,
    )
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            failure = runner.run(_serve(options, limits, bound, load))
    except KeyboardInterrupt:
        failure = None
    if failure is not None:
        refuse(f"the engine failed: {failure}", status=3)


def worker_parser(prog: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every worker takes."""
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--model-dir", type=Path, required=True, help="folder with the weights and their tokenizer")
    parser.add_argument("--name", required=True, help="served model name")
    parser.add_argument("--port", type=int, required=True, help="loopback port")
    parser.add_argument("--parent-pid", type=int, help="exit when this process is gone")
    parser.add_argument("--threads", type=int, default=1, help="inference threads")
    parser.add_argument("--context-tokens", type=int, help="prompt and answer together")
    parser.add_argument("--max-output-tokens", type=int, default=1024)
    parser.add_argument("--max-running", type=int, default=64, help="completions per batch")
    parser.add_argument("--max-queued", type=int, default=256, help="requests beyond the batch before 503")
    parser.add_argument("--batch-tokens", type=int, default=512, help="tokens per step, prompts included")
    parser.add_argument("--cache-tokens", type=int, help="size of the KV cache in tokens")
    parser.add_argument("--prefix-caching", action="store_true")
    parser.add_argument("--default-temperature", type=float, default=1.0, help="for requests that name none")
    parser.add_argument("--drain-timeout", type=float, default=10.0, help="seconds for running requests after SIGTERM")
    return parser


def refuse(problem: str, status: int = 2) -> NoReturn:
    """Say in one line why there is no engine, and exit."""
    print(f"error: {problem}", file=sys.stderr, flush=True)  # noqa: T201 - the supervisor reads this line
    raise SystemExit(status)


def model_context_tokens(model_dir: Path) -> int | None:
    """Return the longest sequence that the model was made for, or None when its config does not say."""
    config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
    tokens = config.get("max_position_embeddings")
    return tokens if isinstance(tokens, int) else None


async def _serve(options: argparse.Namespace, limits: Limits, bound: socket.socket, load: Load) -> str | None:
    """Serve until a signal or a failure of the engine, which is returned."""
    try:
        loaded = load(options, limits, asyncio.get_running_loop())
    except CannotLoad as problem:
        refuse(str(problem))
    with loaded as engine:
        app = WorkerApp(engine, limits, options.max_running + options.max_queued)
        server = uvicorn.Server(_config(app, options))
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        while not serving.done() and engine.gauges().failure is None:
            await asyncio.wait([serving], timeout=POLL_S)
        server.should_exit = True
        await serving
        return engine.gauges().failure


def _config(app: WorkerApp, options: argparse.Namespace) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(options.drain_timeout)),
    )


def _bind(port: int) -> socket.socket:
    """Reserve the port before loading; listening begins when the model is loaded."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError as problem:
        refuse(f"cannot use port {port}: {problem.strerror}; choose another port or stop its user")
    return bound


def _context_tokens(options: argparse.Namespace) -> int:
    try:
        known = model_context_tokens(options.model_dir)
    except (OSError, ValueError) as problem:
        refuse(f"cannot read {options.model_dir}/config.json: {problem}; convert the model again")
    tokens: int = options.context_tokens or known or 2048
    if known is not None and tokens > known:
        refuse(f"context_tokens is {tokens}, but the model was made for {known}; lower context_tokens")
    return tokens
