"""The batching embedder loads in the background, encodes equal texts once, and fails without hanging."""

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import pytest

from cache.batcher import BatchingEmbedder
from cache.embedder import EncoderUnavailable
from core.cached import Vector
from tests.caching import direction


class GatedEncoder:
    """Encodes after `gate` opens, remembers its batches, fails on the text `boom`."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()

    def encode(self, texts: Sequence[str]) -> list[Vector | None]:
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        self.gate.wait(10)
        self.batches.append(list(texts))
        if "boom" in texts:
            raise RuntimeError("no vector")
        return [None if text == "long" else direction(text) for text in texts]


async def ready(embedder: BatchingEmbedder) -> None:
    deadline_s = time.monotonic() + 10
    while not embedder.is_ready() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - readiness is no event
        await asyncio.sleep(0)


async def test_it_is_not_ready_before_the_weights_are_loaded() -> None:
    loaded = threading.Event()

    def load() -> GatedEncoder:
        loaded.wait(10)
        return GatedEncoder()

    embedder = BatchingEmbedder("words", load)
    assert not embedder.is_ready()
    with pytest.raises(EncoderUnavailable, match="loading"):
        await embedder.embed(["a"])
    loaded.set()
    await ready(embedder)
    assert (await embedder.embed(["a"]))[0] is not None
    await embedder.close()


async def test_what_waits_becomes_one_batch_and_equal_texts_one_vector() -> None:
    encoder = GatedEncoder()
    embedder = BatchingEmbedder("words", lambda: encoder)
    await ready(embedder)
    encoder.gate.clear()
    first = asyncio.create_task(embedder.embed(["first"]))
    await asyncio.to_thread(encoder.entered.wait, 10)
    rest = [asyncio.create_task(embedder.embed([text])) for text in ("a", "b", "a", "long")]
    await asyncio.sleep(0)
    encoder.gate.set()
    await first
    vectors = [(await one)[0] for one in rest]
    assert encoder.batches == [["first"], ["a", "b", "long"]]
    assert vectors[3] is None
    np.testing.assert_array_equal(np.asarray(vectors[0]), np.asarray(vectors[2]))
    await embedder.embed(["a", "long"])
    assert len(encoder.batches) == 2
    await embedder.close()


async def test_a_cancelled_waiter_harms_no_other() -> None:
    encoder = GatedEncoder()
    embedder = BatchingEmbedder("words", lambda: encoder)
    await ready(embedder)
    encoder.gate.clear()
    one, other = asyncio.create_task(embedder.embed(["a"])), asyncio.create_task(embedder.embed(["a"]))
    await asyncio.sleep(0)
    one.cancel()
    encoder.gate.set()
    assert (await other)[0] is not None
    await embedder.close()


async def test_a_failure_reaches_its_batch_and_not_the_next() -> None:
    embedder = BatchingEmbedder("words", GatedEncoder)
    await ready(embedder)
    with pytest.raises(EncoderUnavailable, match="failed"):
        await embedder.embed(["boom"])
    assert (await embedder.embed(["a"]))[0] is not None
    await embedder.close()


async def test_too_many_waiting_texts_are_refused() -> None:
    encoder = GatedEncoder()
    embedder = BatchingEmbedder("words", lambda: encoder, max_waiting=2)
    await ready(embedder)
    encoder.gate.clear()
    waiting = [asyncio.create_task(embedder.embed([text])) for text in "ab"]
    await asyncio.sleep(0)
    with pytest.raises(EncoderUnavailable, match="too many"):
        await embedder.embed(["c"])
    encoder.gate.set()
    await asyncio.gather(*waiting)
    await embedder.close()


async def test_weights_that_do_not_load_leave_it_unready() -> None:
    def load() -> GatedEncoder:
        raise ValueError("wrong checksum")

    embedder = BatchingEmbedder("words", load)
    await embedder.close()
    assert not embedder.is_ready()
    with pytest.raises(EncoderUnavailable):
        await embedder.embed(["a"])


async def test_remembered_vectors_are_bounded() -> None:
    encoder = GatedEncoder()
    embedder = BatchingEmbedder("words", lambda: encoder, remembered=1)
    await ready(embedder)
    for text in ("a", "b", "a"):
        await embedder.embed([text])
    assert encoder.batches == [["a"], ["b"], ["a"]]
    await embedder.close()


async def test_encoding_has_one_thread_of_its_own_and_leaves_the_event_loop_free() -> None:
    encoder = GatedEncoder()
    embedder = BatchingEmbedder("words", lambda: encoder)
    await ready(embedder)
    encoder.gate.clear()
    waiting = [asyncio.create_task(embedder.embed([str(number)])) for number in range(16)]
    await asyncio.to_thread(encoder.entered.wait, 10)
    await asyncio.sleep(0)
    assert not any(one.done() for one in waiting), "the loop turns while the encoder works"
    encoder.gate.set()
    await asyncio.gather(*waiting)
    assert encoder.threads == {"headgate-encoder"}
    assert len(encoder.batches) <= 3
    await embedder.close()


async def test_the_cpu_time_of_encoding_is_counted() -> None:
    class Busy(GatedEncoder):
        def encode(self, texts: Sequence[str]) -> list[Vector | None]:
            until_s = time.thread_time() + 0.01
            while time.thread_time() < until_s:
                pass
            return super().encode(texts)

    embedder = BatchingEmbedder("words", Busy)
    await ready(embedder)
    assert embedder.cpu_s == 0.0
    await embedder.embed(["a"])
    await embedder.embed(["a"])
    await embedder.close()
    assert 0.01 <= embedder.cpu_s < 10.0
