"""Embeddings of the gateway's own encoder: what it waits for, packs and refuses."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from backends.protocol import AttemptError, UpstreamCall
from cache.embedder import EncoderUnavailable
from core.cached import Vector
from core.deadline import Deadline
from core.endpoints import EMBEDDINGS
from gateway.parts.local_encoder import EncoderBackend

NEVER = Deadline(None, None)


class Slow:
    """An encoder that is ready once it was asked `polls` times, and reads texts of up to ten characters."""

    fingerprint = "test"

    def __init__(self, polls: int = 0, *, fails: bool = False) -> None:
        self._polls = polls
        self._fails = fails
        self.batches: list[int] = []

    def is_ready(self) -> bool:
        self._polls -= 1
        return self._polls < 0

    async def embed(self, texts: Sequence[str]) -> tuple[Vector | None, ...]:
        if self._polls >= 0 or self._fails:
            raise EncoderUnavailable("the encoder is loading")
        self.batches.append(len(texts))
        return tuple(np.full(384, len(text), np.float32) if len(text) <= 10 else None for text in texts)

    async def close(self) -> None:
        pass


async def embeddings(encoder: Slow, **body: Any) -> Any:
    call = UpstreamCall(EMBEDDINGS, json.dumps({"model": "m", **body}).encode(), "req_1")
    async with EncoderBackend("m", encoder).open(call, NEVER) as response:
        answer = b""
        while (piece := await response.pieces.next(None)) is not None:
            answer += piece
        return json.loads(answer)


async def test_an_encoder_that_is_still_loading_is_waited_for() -> None:
    answer = await embeddings(Slow(polls=3), input="abc")
    assert answer["data"][0]["embedding"][:2] == [3.0, 3.0]


async def test_many_texts_are_embedded_in_batches_and_keep_their_order() -> None:
    encoder = Slow()
    answer = await embeddings(encoder, input=["a" * (at % 10 + 1) for at in range(130)])
    assert encoder.batches == [64, 64, 2]
    assert [row["embedding"][0] for row in answer["data"][:3]] == [1.0, 2.0, 3.0]
    assert [row["index"] for row in answer["data"]] == list(range(130))


async def test_base64_is_little_endian_float32() -> None:
    answer = await embeddings(Slow(), input="abcd", encoding_format="base64")
    packed = base64.b64decode(answer["data"][0]["embedding"])
    assert np.frombuffer(packed, "<f4").tolist() == [4.0] * 384


@pytest.mark.parametrize(
    "body",
    [
        {"input": [1, 2]},
        {"input": "x", "dimensions": 3},
        {"input": ["ok", "x" * 11]},
        {"input": "x", "encoding_format": 1},
    ],
)
async def test_what_cannot_be_embedded_whole_is_refused(body: dict[str, Any]) -> None:
    with pytest.raises(AttemptError) as refusal:
        await embeddings(Slow(), **body)
    assert (refusal.value.http_status, refusal.value.retryable) == (400, False)


async def test_an_encoder_that_fails_is_unavailable() -> None:
    with pytest.raises(AttemptError) as failure:
        await embeddings(Slow(fails=True), input="x")
    assert failure.value.http_status == 503
