"""The transformers worker: `python -m backends.engines.transformers_server --model-dir D --name N --port P ...`.

Loads a Hugging Face folder and serves it with transformers' continuous batching; see `worker_server` for its life. No
code from the folder runs.
"""

import argparse
import asyncio
from contextlib import AbstractContextManager, closing

from backends.engines.generation import TextEngine
from backends.engines.transformers_engine import DTYPES, TransformersEngine, TransformersOptions
from backends.engines.worker_request import Limits
from backends.engines.worker_server import CannotLoad, run_worker, worker_parser


def main() -> None:
    """Run the worker until it is told to stop."""
    parser = worker_parser("transformers_server", __doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--precision", choices=sorted(DTYPES), help="of unquantised weights; without it as stored")
    parser.add_argument("--attention", default="sdpa", help="sdpa, paged|eager, or a flash attention that is installed")
    parser.add_argument("--page-tokens", type=int, default=32, help="tokens per page of the KV cache")
    parser.add_argument("--memory-bytes", type=int, required=True, help="weights and KV cache together")
    run_worker(parser.parse_args(), _load, has_all_controls=False)


def _load(
    options: argparse.Namespace, limits: Limits, loop: asyncio.AbstractEventLoop
) -> AbstractContextManager[TextEngine]:
    load = TransformersOptions(
        model_dir=options.model_dir,
        device=options.device,
        precision=options.precision,
        attention=options.attention,
        threads=options.threads,
        max_running=options.max_running,
        batch_tokens=options.batch_tokens,
        cache_tokens=options.cache_tokens,
        page_tokens=options.page_tokens,
        prefix_caching=options.prefix_caching,
        memory_bytes=options.memory_bytes,
        context_tokens=limits.context_tokens,
    )
    try:
        return closing(TransformersEngine(load, loop))
    except (OSError, ValueError, RuntimeError, ImportError, KeyError) as problem:
        first = next((line.strip() for line in str(problem).splitlines() if line.strip()), type(problem).__name__)
        mend = "see `headgate models check`, or fetch the model again"
        raise CannotLoad(f"transformers cannot load {options.model_dir}: {first[:300]}; {mend}") from problem


if __name__ == "__main__":
    main()
