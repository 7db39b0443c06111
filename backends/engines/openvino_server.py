"""The OpenVINO worker: `python -m backends.engines.openvino_server --model-dir D --name N --port P ...`.

Loads OpenVINO IR and serves it with continuous batching; see `worker_server` for its life.
"""

import argparse
import asyncio
from contextlib import AbstractContextManager, closing
from pathlib import Path

from backends.engines.generation import TextEngine
from backends.engines.openvino_engine import LoadOptions, OpenVinoEngine, Speculation
from backends.engines.worker_request import Limits
from backends.engines.worker_server import CannotLoad, run_worker, worker_parser


def main() -> None:
    """Run the worker until it is told to stop."""
    parser = worker_parser("openvino_server", __doc__)
    parser.add_argument("--inference-precision", help="f32, f16 or bf16; OpenVINO chooses without it")
    parser.add_argument("--kv-cache-precision", help="u8, f16, bf16 or f32; OpenVINO chooses without it")
    parser.add_argument("--draft-model-dir", type=Path, help="a small model of the same tokenizer that guesses ahead")
    parser.add_argument("--prompt-lookup", type=int, help="guess ahead what followed the last N tokens in the prompt")
    parser.add_argument("--guessed-tokens", type=int, default=4, help="tokens that are guessed at a time")
    run_worker(parser.parse_args(), _load)


def _load(
    options: argparse.Namespace, _: Limits, loop: asyncio.AbstractEventLoop
) -> AbstractContextManager[TextEngine]:
    load = LoadOptions(
        model_dir=options.model_dir,
        threads=options.threads,
        max_running=options.max_running,
        batch_tokens=options.batch_tokens,
        cache_tokens=options.cache_tokens,
        prefix_caching=options.prefix_caching,
        inference_precision=options.inference_precision,
        kv_cache_precision=options.kv_cache_precision,
        speculation=Speculation(options.guessed_tokens, options.draft_model_dir, options.prompt_lookup),
    )
    try:
        return closing(OpenVinoEngine(load, loop))
    except RuntimeError as problem:
        last = str(problem).strip().splitlines()[-1:]
        line = f"OpenVINO cannot load {options.model_dir}: {' '.join(last)}; convert the model again"
        raise CannotLoad(line) from problem


if __name__ == "__main__":
    main()
