"""Run an encoder in one thread of its own, taking what is queued as a batch, behind a bounded cache of vectors."""

import asyncio
import hashlib
import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol

from cache.embedder import EncoderUnavailable
from core.cached import Vector

log = logging.getLogger(__name__)
_GATHER_S = 0.0005
"""How long a batch gathers while texts come together; without, every other batch would be of one text."""


class Encoder(Protocol):
    """A loaded encoder; called from one thread only."""

    def encode(self, texts: Sequence[str]) -> Sequence[Vector | None]:
        """Return a vector for each text, None where it exceeds the window."""
        ...


class BatchingEmbedder:
    """An `Embedder` over any encoder: loads it in the background, encodes in batches, remembers vectors.

    On a CPU a batch makes a text a third cheaper at most, so a text that comes alone is not kept waiting for others: a
    batch is whatever waits when the thread is free. Equal texts in flight are encoded once.
    """

    def __init__(
        self,
        fingerprint: str,
        load: Callable[[], Encoder],
        *,
        remembered: int = 10_000,
        max_batch: int = 32,
        max_waiting: int = 256,
        start: bool = True,
    ) -> None:
        self._fingerprint = fingerprint
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._queue: queue.SimpleQueue[tuple[str, Future[Vector | None]] | None] = queue.SimpleQueue()
        self._in_flight: dict[bytes, Future[Vector | None]] = {}
        self._remembered: OrderedDict[bytes, Vector | None] = OrderedDict()
        self._max_remembered = remembered
        self._lock = threading.Lock()
        self._cpu_s = 0.0
        self._state = "loading"
        self._were_many = False
        self._thread = threading.Thread(target=self._run, args=(load,), name="headgate-encoder", daemon=True)
        if start:
            self.start()

    def start(self) -> None:
        """Begin to load the encoder, in its thread."""
        self._thread.start()

    @property
    def fingerprint(self) -> str:
        """Name weights, runtime and precision."""
        return self._fingerprint

    @property
    def cpu_s(self) -> float:
        """Return the CPU seconds that encoding took so far; the encoder computes in its own thread alone."""
        return self._cpu_s

    def is_ready(self) -> bool:
        """Whether the encoder is loaded and running."""
        return self._state == "ready"

    async def embed(self, texts: Sequence[str]) -> tuple[Vector | None, ...]:
        """Return one vector for each text, None beyond the window; see `Embedder.embed`."""
        waiting = [self._ask(text) for text in texts]
        vectors: list[Vector | None] = []
        for one in waiting:
            vectors.append(await asyncio.wrap_future(one) if isinstance(one, Future) else one)
        return tuple(vectors)

    async def close(self) -> None:
        """Stop after the batch in work and refuse what waits."""
        self._state = "closed"
        self._queue.put(None)
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, 30.0)

    def _ask(self, text: str) -> "Future[Vector | None] | Vector | None":
        if self._state != "ready":
            raise EncoderUnavailable(f"the encoder is {self._state}")
        key = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        with self._lock:
            if key in self._remembered:
                self._remembered.move_to_end(key)
                return self._remembered[key]
            if key in self._in_flight:
                return _follow(self._in_flight[key])
            if len(self._in_flight) >= self._max_waiting:
                raise EncoderUnavailable("too many texts wait for the encoder")
            leader: Future[Vector | None] = Future()
            self._in_flight[key] = leader
        leader.add_done_callback(lambda done: self._remember(key, done))
        self._queue.put((text, leader))
        if not self._thread.is_alive():
            self._refuse_waiting()
        return _follow(leader)

    def _remember(self, key: bytes, done: "Future[Vector | None]") -> None:
        with self._lock:
            del self._in_flight[key]
            if done.exception() is not None:
                return
            self._remembered[key] = done.result()
            if len(self._remembered) > self._max_remembered:
                self._remembered.popitem(last=False)

    def _run(self, load: Callable[[], Encoder]) -> None:
        try:
            encoder = load()
        except Exception as problem:
            self._state = "broken"
            log.warning("encoder not loaded, the cache works by exact match", extra={"error": str(problem)})
            return
        if self._state == "loading":
            self._state = "ready"
        while (batch := self._next_batch()) is not None:
            began_s = time.thread_time()
            self._encode(encoder, batch)
            self._cpu_s += time.thread_time() - began_s
        self._refuse_waiting()

    def _next_batch(self) -> "list[tuple[str, Future[Vector | None]]] | None":
        first = self._queue.get()
        if first is None:
            return None
        if self._were_many:
            time.sleep(_GATHER_S)  # those whose texts were just encoded together are about to ask again together
        batch = [first]
        while len(batch) < self._max_batch:
            try:
                more = self._queue.get_nowait()
            except queue.Empty:
                break
            if more is None:
                self._queue.put(None)
                break
            batch.append(more)
        self._were_many = len(batch) > 1
        return batch

    def _encode(self, encoder: Encoder, batch: "list[tuple[str, Future[Vector | None]]]") -> None:
        try:
            vectors = encoder.encode([text for text, _ in batch])
        except Exception as problem:
            log.warning("encoder failed, these prompts are matched exactly only", extra={"error": str(problem)})
            for _, future in batch:
                future.set_exception(EncoderUnavailable("the encoder failed"))
            return
        for (_, future), vector in zip(batch, vectors, strict=True):
            future.set_result(vector)

    def _refuse_waiting(self) -> None:
        while not self._queue.empty():
            waiting = self._queue.get_nowait()
            if waiting is not None:
                waiting[1].set_exception(EncoderUnavailable("the encoder is closed"))


def _follow(leader: "Future[Vector | None]") -> "Future[Vector | None]":
    """Return a future that ends as `leader` does and may be cancelled without harm to others."""
    follower: Future[Vector | None] = Future()

    def hand_on(done: "Future[Vector | None]") -> None:
        if not follower.set_running_or_notify_cancel():
            return
        problem = done.exception()
        if problem is not None:
            follower.set_exception(problem)
        else:
            follower.set_result(done.result())

    leader.add_done_callback(hand_on)
    return follower
