"""The OpenVINO worker: `python -m backends.engines.openvino_server --model-dir D --name N --port P ...`.

Binds a loopback port, loads OpenVINO IR, and serves it with continuous batching until SIGTERM; running requests then
get `--drain-timeout` seconds. Whatever stops it from starting is one line on stderr and exit status 2.
"""

import argparse
import asyncio
import socket
import sys
from pathlib import Path
from typing import NoReturn

import uvicorn
import uvloop

from backends.engines.openvino_engine import LoadOptions, OpenVinoEngine, model_context_tokens
from backends.engines.parent import die_with_parent
from backends.engines.worker_app import WorkerApp
from backends.engines.worker_request import Limits

KEEP_ALIVE_S = 75
POLL_S = 0.5
SWITCH_INTERVAL_S = 0.0002
"""A step holds the interpreter lock. With Python's 5 ms a first token waited for the lock until 20 tokens were made:
TTFT 8 to 12 ms at one stream, against 4 ms with this, on the same busy machine."""


def main() -> None:
    """Run the worker until it is told to stop."""
    options = _arguments().parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if options.parent_pid is not None:
        die_with_parent(options.parent_pid)
    bound = _bind(options.port)
    context_tokens = _context_tokens(options)
    limits = Limits(options.name, context_tokens, options.max_output_tokens, options.default_temperature)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            failure = runner.run(_serve(options, limits, bound))
    except KeyboardInterrupt:
        failure = None
    if failure is not None:
        _refuse(f"the engine failed: {failure}", status=3)


async def _serve(options: argparse.Namespace, limits: Limits, bound: socket.socket) -> str | None:
    """Serve until a signal or a failure of the engine, which is returned."""
    load = LoadOptions(
        model_dir=options.model_dir,
        threads=options.threads,
        max_running=options.max_running,
        batch_tokens=options.batch_tokens,
        cache_tokens=options.cache_tokens,
        prefix_caching=options.prefix_caching,
        inference_precision=options.inference_precision,
        kv_cache_precision=options.kv_cache_precision,
    )
    try:
        engine = OpenVinoEngine(load, asyncio.get_running_loop())
    except RuntimeError as problem:
        last = str(problem).strip().splitlines()[-1:]
        _refuse(f"OpenVINO cannot load {options.model_dir}: {' '.join(last)}; convert the model again")
    app = WorkerApp(engine, limits, options.max_running + options.max_queued)
    server = uvicorn.Server(_config(app, options))
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    while not serving.done() and engine.gauges().failure is None:
        await asyncio.wait([serving], timeout=POLL_S)
    server.should_exit = True
    await serving
    failure = engine.gauges().failure
    engine.close()
    return failure


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
    """Reserve the port before loading, so that a conflict shows at once; listening begins when the model is loaded."""
    bound = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError as problem:
        _refuse(f"cannot use port {port}: {problem.strerror}; choose another port or stop its user")
    return bound


def _context_tokens(options: argparse.Namespace) -> int:
    try:
        known = model_context_tokens(options.model_dir)
    except (OSError, ValueError) as problem:
        _refuse(f"cannot read {options.model_dir}/config.json: {problem}; convert the model again")
    tokens: int = options.context_tokens or known or 2048
    if known is not None and tokens > known:
        _refuse(f"context_tokens is {tokens}, but the model was made for {known}; lower context_tokens")
    return tokens


def _refuse(problem: str, status: int = 2) -> NoReturn:
    print(f"error: {problem}", file=sys.stderr, flush=True)  # noqa: T201 - the supervisor reads this line
    raise SystemExit(status)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="openvino_server", description=__doc__)
    parser.add_argument("--model-dir", type=Path, required=True, help="folder with OpenVINO IR and its tokenizer")
    parser.add_argument("--name", required=True, help="served model name")
    parser.add_argument("--port", type=int, required=True, help="loopback port")
    parser.add_argument("--parent-pid", type=int, help="exit when this process is gone")
    parser.add_argument("--threads", type=int, default=1, help="inference threads")
    parser.add_argument("--context-tokens", type=int, help="prompt and answer together")
    parser.add_argument("--max-output-tokens", type=int, default=1024)
    parser.add_argument("--max-running", type=int, default=64, help="completions per batch")
    parser.add_argument("--max-queued", type=int, default=256, help="requests beyond the batch before 503")
    parser.add_argument("--batch-tokens", type=int, default=512, help="tokens per step, prompts included")
    parser.add_argument("--cache-tokens", type=int, help="size of the KV cache in tokens; without it, it grows")
    parser.add_argument("--prefix-caching", action="store_true")
    parser.add_argument("--default-temperature", type=float, default=1.0, help="for requests that name none")
    parser.add_argument("--inference-precision", help="f32, f16 or bf16; OpenVINO chooses without it")
    parser.add_argument("--kv-cache-precision", help="u8, f16, bf16 or f32; OpenVINO chooses without it")
    parser.add_argument("--drain-timeout", type=float, default=10.0, help="seconds for running requests after SIGTERM")
    return parser


if __name__ == "__main__":
    main()
