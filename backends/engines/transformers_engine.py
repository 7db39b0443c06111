"""Hugging Face transformers' continuous batching behind the generation seam, on CPU or CUDA.

Transformers steps the batch in a thread of its own; a second thread here takes what it produced and hands it to the
event loop, all that is there at once. A generation loop that fails ends the engine.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig

from backends.engines.detokenise import Detokeniser, WindowDetokeniser
from backends.engines.generation import Gauges, Piece, PromptRefused, Sampling, Sink, deliver, last_line

POLL_S = 0.2
CLOSE_TIMEOUT_S = 10.0
NO_END = -1
ONE_ALONE = 1e-6
KV_SHARE = 0.8
"""Share of the declared memory beyond the weights that may become KV cache; activations need the rest."""
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True, slots=True)
class TransformersOptions:
    """How to load; without `cache_tokens` the KV cache takes what the declared memory leaves beside the weights.

    Attributes:
        precision: what unquantised weights are computed in; None takes the checkpoint as it is.
        attention: transformers' name of an attention implementation.
    """

    model_dir: Path
    device: str
    precision: str | None
    attention: str
    threads: int
    max_running: int
    batch_tokens: int
    cache_tokens: int | None
    page_tokens: int
    prefix_caching: bool
    memory_bytes: int
    context_tokens: int


@dataclass(slots=True)
class _Running:
    index: int
    sink: Sink
    ends: frozenset[int]
    seen_tokens: int = 0


class TransformersEngine:
    """Batches continuously; seeds, penalties and JSON mode are not among what the library's batching offers."""

    def __init__(self, options: TransformersOptions, loop: asyncio.AbstractEventLoop) -> None:
        torch.set_num_threads(options.threads)
        torch.set_grad_enabled(False)
        self._loop = loop
        self._tokenizer = AutoTokenizer.from_pretrained(options.model_dir, local_files_only=True)
        self._tokenizing = threading.Lock()
        model = _load_model(options)
        self._vocabulary = int(model.config.get_text_config().vocab_size)
        self._ends = _end_ids(model, self._tokenizer)
        self._cache_tokens = options.cache_tokens or _affordable_tokens(model, options)
        self._manager = self._start(model, options)
        self._running: dict[str, _Running] = {}
        self._guard = threading.Lock()
        self._tickets = 0
        self._failure: str | None = None
        self._stopping = threading.Event()
        self._last_progress_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="collect", daemon=True)
        self._thread.start()

    def encode(self, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
        """Apply the chat template once and tokenise; the template alone decides about special tokens."""
        try:
            with self._tokenizing:
                text = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False)
                ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        except Exception as problem:  # templates raise what they like: jinja's errors, ValueError, TypeError
            raise PromptRefused(f"The chat template rejects these messages: {last_line(problem)}") from problem
        return ids

    def detokeniser(self) -> Detokeniser:
        """Return one that is right for every tokenizer."""
        return WindowDetokeniser(self._decode)

    def submit(self, prompt: Sequence[int], sampling: Sampling, index: int, sink: Sink) -> int:
        """Queue one completion for the next step."""
        self._tickets += 1
        ticket = self._tickets
        ends = frozenset[int]() if sampling.ignore_eos else self._ends
        with self._guard:
            if not self._running:
                self._last_progress_s = time.monotonic()
            self._running[str(ticket)] = _Running(index, sink, ends)
        taken = self._manager.add_request(
            list(prompt),
            request_id=str(ticket),
            max_new_tokens=sampling.max_tokens,
            streaming=True,
            eos_token_id=list(ends) or NO_END,
            **self._choice(sampling),
        )
        if taken is None:
            self.cancel(ticket)
            self._loop.call_soon(sink, Piece(index, (), error=self._failure or "the engine is stopping"))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Take a completion out of the batch before the next step."""
        with self._guard:
            known = self._running.pop(str(ticket), None)
        if known is not None:
            self._manager.cancel_request(str(ticket))

    def gauges(self) -> Gauges:
        """Return the state after the last step."""
        processor = self._manager.batch_processor
        running = len(self._running)
        waiting = len(processor.scheduler.waiting_requests) if processor is not None else 0
        used = sum(map(_tokens_held, processor.scheduler.active_requests.copy().values())) if processor else 0
        return Gauges(
            running=running,
            waiting=waiting,
            cache_usage_ratio=min(1.0, used / self._cache_tokens),
            steps=getattr(self._manager, "current_batch", 0),
            stalled_s=time.monotonic() - self._last_progress_s if running else 0.0,
            failure=self._failure,
        )

    def close(self) -> None:
        """Stop generating; running completions end without another piece."""
        self._stopping.set()
        self._manager.stop(block=True, timeout=CLOSE_TIMEOUT_S, hard_stop=True)
        self._thread.join(CLOSE_TIMEOUT_S)

    def _start(self, model: Any, options: TransformersOptions) -> Any:
        """Start the library's batching; every control that requests may set must be present from the start."""
        generation = GenerationConfig(
            do_sample=True,
            temperature=0.5,
            top_k=2,
            top_p=0.5,
            max_new_tokens=1,
            eos_token_id=list(self._ends) or NO_END,
        )
        batching = ContinuousBatchingConfig(
            page_size=options.page_tokens,
            num_blocks=max(1, self._cache_tokens // options.page_tokens),
            max_batch_tokens=options.batch_tokens,
            max_requests_per_batch=options.max_running,
            allow_block_sharing=options.prefix_caching,
            per_request_processors=True,
            auto_switch_to_flash=False,
        )
        manager = model.init_continuous_batching(generation_config=generation, continuous_batching_config=batching)
        manager.start()
        return manager

    def _choice(self, sampling: Sampling) -> dict[str, float | int]:
        """Return the library's controls; greedy is a choice among one, of which `top_k` alone keeps all equals."""
        if sampling.temperature == 0:
            return {"temperature": 1.0, "top_k": 1, "top_p": ONE_ALONE}
        return {
            "temperature": sampling.temperature,
            "top_k": min(sampling.top_k or self._vocabulary, self._vocabulary),
            "top_p": sampling.top_p,
        }

    def _decode(self, ids: Sequence[int]) -> str:
        with self._tokenizing:
            text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def _run(self) -> None:
        """Collect until the engine closes or the library's loop has failed."""
        while not self._stopping.is_set():
            output = self._manager.get_result(timeout=POLL_S)
            if output is not None:
                self._collect(output)
            elif (error := self._manager.background_thread_status.fatal_error) is not None:
                self._fail(last_line(error))
                return

    def _collect(self, output: Any) -> None:
        """Hand over this output and whatever else is there already."""
        self._last_progress_s = time.monotonic()
        pieces = []
        while output is not None:
            with self._guard:
                running = self._running.get(output.request_id)
                if running is not None and output.is_finished():
                    del self._running[output.request_id]
            if running is not None:
                pieces.append((running.sink, _piece(running, output)))
            output = self._manager.get_result(timeout=0)
        deliver(pieces, self._loop)

    def _fail(self, reason: str) -> None:
        self._failure = reason
        with self._guard:
            running, self._running = list(self._running.values()), {}
        deliver([(one.sink, Piece(one.index, (), error=reason)) for one in running], self._loop)


def _load_model(options: TransformersOptions) -> Any:
    logging.getLogger("ContinuousBatchingLogger").setLevel(logging.CRITICAL)  # it names a missing psutil an error
    dtype = DTYPES[options.precision] if options.precision is not None else "auto"
    model = AutoModelForCausalLM.from_pretrained(
        options.model_dir,
        local_files_only=True,
        trust_remote_code=False,
        dtype=dtype,
        attn_implementation=options.attention,
    )
    return model.to(options.device).eval()


def _end_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return every token that ends an answer, as the checkpoint's generation settings and tokenizer say."""
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured, tokenizer.eos_token_id]
    return frozenset(token for token in ids if token is not None and token >= 0)


def _affordable_tokens(model: Any, options: TransformersOptions) -> int:
    """Return how many tokens of KV cache fit into the declared memory beside the weights, for all running requests."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    per_token_bytes = 2 * config.num_hidden_layers * heads * size * model.dtype.itemsize
    left_bytes = KV_SHARE * (options.memory_bytes - model.get_memory_footprint())
    wanted = options.max_running * options.context_tokens
    return min(wanted, max(options.context_tokens, int(left_bytes / per_token_bytes)))


def _tokens_held(state: Any) -> int:
    return int(state.current_len())


def _piece(running: _Running, output: Any) -> Piece:
    """Return what is new since the last output, which repeats all tokens."""
    tokens = list(output.generated_tokens[running.seen_tokens :])
    running.seen_tokens += len(tokens)
    if output.error is not None:
        return Piece(running.index, tokens, error=str(output.error)[:300])
    if not output.is_finished():
        return Piece(running.index, tokens)
    ended = bool(output.generated_tokens) and output.generated_tokens[-1] in running.ends
    return Piece(running.index, tokens, "stop" if ended else "length")
