"""OpenVINO GenAI behind the generation seam: one thread steps the batch, the event loop talks to it through an inbox.

A step that raises ends the engine: every running completion gets an error and the process is expected to exit, because
the state of the batch is unknown after it.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from backends.engines.detokenise import SAMPLE, ByteDetokeniser, Detokeniser, WindowDetokeniser, byte_table
from backends.engines.generation import FinishReason, Gauges, Piece, PromptRefused, Sampling, Sink, deliver, last_line

KV_BLOCK_TOKENS = 32
"""Tokens per KV block of the CPU plugin, as `PipelineMetrics` of openvino-genai 2026.4 shows it."""


def import_openvino_genai() -> ModuleType:
    """Import the library with its usage telemetry cut off.

    `import openvino` starts a client that creates an id under the home directory and sends an event at once. Without
    the package `openvino_telemetry` it uses a stub, so that package is made unimportable first.
    """
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino_genai

    return openvino_genai  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True)
class Speculation:
    """Whether and how several tokens are guessed ahead and checked in one step; greedy answers stay the same.

    Attributes:
        guessed_tokens: how many at a time.
        draft_model_dir: a smaller model of the same tokenizer that guesses.
        prompt_lookup: instead, guess what followed the last so many tokens earlier in the prompt.
    """

    guessed_tokens: int = 4
    draft_model_dir: Path | None = None
    prompt_lookup: int | None = None


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How to load; without `cache_tokens` the KV cache grows, without a precision OpenVINO chooses one."""

    model_dir: Path
    threads: int
    max_running: int
    batch_tokens: int
    cache_tokens: int | None
    prefix_caching: bool
    inference_precision: str | None = None
    kv_cache_precision: str | None = None
    speculation: Speculation = Speculation()


@dataclass(slots=True)
class _Running:
    index: int
    sink: Sink
    handle: Any


@dataclass(frozen=True, slots=True)
class _Waiting:
    prompt: Sequence[int]
    sampling: Sampling
    index: int
    sink: Sink


class OpenVinoEngine:
    """Batches continuously; what it generates reaches the sinks on `loop`, once per step for all of them."""

    def __init__(self, options: LoadOptions, loop: asyncio.AbstractEventLoop) -> None:
        self._genai = import_openvino_genai()
        self._speculation = options.speculation
        self._pipeline = self._load(options)
        self._tokenizer = self._pipeline.get_tokenizer()
        self._end_ids = self._pipeline.get_config().stop_token_ids
        self._byte_table = self._read_byte_table()
        self._loop = loop
        self._running: dict[int, _Running] = {}
        self._waiting: dict[int, _Waiting] = {}
        self._max_running = options.max_running
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._stopping = False
        self._tickets = 0
        self._gauges = Gauges()
        self._last_progress_s = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="step", daemon=True)
        self._thread.start()

    def encode(self, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
        """Apply the chat template once and tokenise; the template alone decides about special tokens."""
        try:
            text = self._tokenizer.apply_chat_template(list(messages), add_generation_prompt=True)
            return self._ids(text)
        except RuntimeError as problem:
            raise PromptRefused(f"The chat template rejects these messages: {last_line(problem)}") from problem

    def detokeniser(self) -> Detokeniser:
        """Return the byte-wise one where it is exact for this tokenizer."""
        if self._byte_table is not None:
            return ByteDetokeniser(self._byte_table)
        return WindowDetokeniser(self._tokenizer.decode)

    def submit(self, prompt: Sequence[int], sampling: Sampling, index: int, sink: Sink) -> int:
        """Queue one completion for the next step."""
        self._tickets += 1
        ticket = self._tickets
        waiting = _Waiting(prompt, sampling, index, sink)
        self._post(lambda: self._waiting.update({ticket: waiting}))
        return ticket

    def cancel(self, ticket: int) -> None:
        """Take a completion out of the batch before the next step."""
        self._post(lambda: self._drop(ticket))

    def gauges(self) -> Gauges:
        """Return the last step's gauges, with the present stall."""
        known = self._gauges
        stalled_s = time.monotonic() - self._last_progress_s if self._running else 0.0
        return replace(known, stalled_s=stalled_s)

    def close(self) -> None:
        """Stop stepping and wait for the thread; running completions end without another piece."""
        self._stopping = True
        with self._wake:
            self._wake.notify()
        self._thread.join()

    def _load(self, options: LoadOptions) -> Any:
        scheduler = self._genai.SchedulerConfig()
        scheduler.max_num_seqs = options.max_running
        scheduler.max_num_batched_tokens = options.batch_tokens
        scheduler.enable_prefix_caching = options.prefix_caching
        if options.cache_tokens is not None:
            scheduler.num_kv_blocks = -(-options.cache_tokens // KV_BLOCK_TOKENS)
        # Pinned threads of two engines would land on the same core.
        properties: dict[str, object] = {"INFERENCE_NUM_THREADS": options.threads, "ENABLE_CPU_PINNING": False}
        if options.inference_precision is not None:
            properties["INFERENCE_PRECISION_HINT"] = options.inference_precision
        if options.kv_cache_precision is not None:
            properties["KV_CACHE_PRECISION"] = options.kv_cache_precision
        speculation = options.speculation
        if speculation.draft_model_dir is not None:
            properties["draft_model"] = self._genai.draft_model(
                str(speculation.draft_model_dir), "CPU", INFERENCE_NUM_THREADS=options.threads, ENABLE_CPU_PINNING=False
            )
        elif speculation.prompt_lookup is not None:
            properties["prompt_lookup"] = True
        return self._genai.ContinuousBatchingPipeline(
            str(options.model_dir), scheduler, "CPU", properties, {"INFERENCE_NUM_THREADS": 1}
        )

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).input_ids.data[0].tolist()
        return ids

    def _read_byte_table(self) -> dict[int, bytes] | None:
        def decode_each(ids: Sequence[int]) -> list[str]:
            texts: list[str] = self._tokenizer.decode([[token] for token in ids], skip_special_tokens=True)
            return texts

        return byte_table(self._tokenizer.get_vocab(), self._tokenizer.decode, decode_each, self._ids(SAMPLE))

    def _post(self, command: Callable[[], None]) -> None:
        with self._wake:
            self._inbox.append(command)
            self._wake.notify()

    def _run(self) -> None:
        try:
            while self._await_work():
                while self._inbox:
                    self._inbox.popleft()()
                self._admit()
                if self._pipeline.has_non_finished_requests():
                    self._pipeline.step()
                    self._last_progress_s = time.monotonic()
                    self._collect()
        except Exception as problem:
            self._fail(last_line(problem))

    def _await_work(self) -> bool:
        with self._wake:
            while not (self._stopping or self._inbox or self._waiting or self._pipeline.has_non_finished_requests()):
                self._wake.wait()
        return not self._stopping

    def _admit(self) -> None:
        """Let those that wait into the batch while it has room: with split prompts, the library bounds tokens alone."""
        while self._waiting and len(self._running) < self._max_running:
            ticket = next(iter(self._waiting))
            self._start(ticket, self._waiting.pop(ticket))

    def _start(self, ticket: int, waiting: _Waiting) -> None:
        try:
            handle = self._pipeline.add_request(ticket, self._tensor(waiting.prompt), self._config(waiting.sampling))
        except RuntimeError as problem:
            deliver([(waiting.sink, Piece(waiting.index, (), error=last_line(problem)))], self._loop)
            return
        if not self._running:
            self._last_progress_s = time.monotonic()
        self._running[ticket] = _Running(waiting.index, waiting.sink, handle)

    def _drop(self, ticket: int) -> None:
        self._waiting.pop(ticket, None)
        running = self._running.pop(ticket, None)
        if running is not None:
            running.handle.cancel()

    def _collect(self) -> None:
        """Read what the step produced; `read` blocks when there is nothing, so it is asked first."""
        pieces: list[tuple[Sink, Piece]] = []
        for ticket, running in list(self._running.items()):
            piece = self._next_piece(running)
            if piece is None:
                continue
            pieces.append((running.sink, piece))
            if piece.finish_reason is not None or piece.error is not None:
                del self._running[ticket]
        metrics = self._pipeline.get_metrics()
        waiting = len(self._waiting) + max(0, metrics.requests - metrics.scheduled_requests)
        usage_ratio, steps = metrics.cache_usage / 100, self._gauges.steps + 1
        drafted, accepted = self._guessed(pieces)
        self._gauges = Gauges(
            len(self._running), waiting, usage_ratio, steps, drafted_tokens=drafted, accepted_tokens=accepted
        )
        deliver(pieces, self._loop)

    def _guessed(self, pieces: list[tuple[Sink, Piece]]) -> tuple[int | None, int | None]:
        """Return the tokens guessed and accepted so far: whatever a step yields beyond one token was guessed.

        The library tells neither; with prompt lookup it may guess fewer than counted here.
        """
        speculation = self._speculation
        if speculation.draft_model_dir is None and speculation.prompt_lookup is None:
            return None, None
        produced = [len(piece.token_ids) for _, piece in pieces if piece.token_ids]
        drafted = (self._gauges.drafted_tokens or 0) + speculation.guessed_tokens * len(produced)
        return drafted, (self._gauges.accepted_tokens or 0) + sum(n - 1 for n in produced)

    def _next_piece(self, running: _Running) -> Piece | None:
        tokens: list[int] = []
        reason: FinishReason | None = None
        while running.handle.can_read():
            for output in running.handle.read().values():
                tokens.extend(output.generated_ids)
                reason = self._finish_reason(output.finish_reason)
        if reason is None and running.handle.get_status() == self._genai.GenerationStatus.IGNORED:
            return Piece(running.index, tokens, error="the KV cache has no room for this request")
        return Piece(running.index, tokens, reason) if tokens or reason else None

    def _finish_reason(self, reason: object) -> FinishReason | None:
        reasons = self._genai.GenerationFinishReason
        return "stop" if reason == reasons.STOP else "length" if reason == reasons.LENGTH else None

    def _config(self, sampling: Sampling) -> object:
        config = self._genai.GenerationConfig(max_new_tokens=sampling.max_tokens)
        config.apply_chat_template = False
        config.stop_token_ids = self._end_ids
        config.ignore_eos = sampling.ignore_eos
        config.do_sample = sampling.temperature > 0
        if config.do_sample:
            config.temperature = sampling.temperature
            config.top_p = sampling.top_p
            config.rng_seed = sampling.seed
            if sampling.top_k is not None:
                config.top_k = sampling.top_k
        if self._speculation.draft_model_dir is not None or self._speculation.prompt_lookup is not None:
            config.num_assistant_tokens = self._speculation.guessed_tokens
        if self._speculation.prompt_lookup is not None:
            config.max_ngram_size = self._speculation.prompt_lookup
        config.presence_penalty = sampling.presence_penalty
        config.frequency_penalty = sampling.frequency_penalty
        if sampling.json_schema is not None:
            config.structured_output_config = self._genai.StructuredOutputConfig(json_schema=sampling.json_schema)
        return config

    def _tensor(self, prompt: Sequence[int]) -> object:
        import openvino

        return openvino.Tensor(np.asarray([prompt], dtype=np.int64))

    def _fail(self, reason: str) -> None:
        self._gauges = Gauges(failure=reason, steps=self._gauges.steps)
        cut: list[_Running | _Waiting] = [*self._running.values(), *self._waiting.values()]
        deliver([(one.sink, Piece(one.index, (), error=reason)) for one in cut], self._loop)
        self._running.clear()
        self._waiting.clear()
