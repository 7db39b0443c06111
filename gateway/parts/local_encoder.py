"""Embeddings from the gateway's own encoder, as a deployment like any other: same pipeline, price and budget."""

import asyncio
import base64
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import msgspec
import numpy as np

from backends.deployment import Deployment
from backends.protocol import AttemptError, Iterated, UpstreamCall, UpstreamResponse
from cache.embedder import Embedder, EncoderUnavailable
from core.cached import Vector
from core.deadline import Deadline
from core.trace import AttemptOutcome
from gateway.settings.deployments import EncoderDeployment

DIMENSIONS = 384
BATCH = 64
BYTES_PER_TOKEN = 4
POLL_S = 0.05
LONGEST_LOADING_POLLS = 200


class _Body(msgspec.Struct):
    input: str | list[str]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None


_decoder = msgspec.json.Decoder(_Body)


class EncoderBackend:
    """Answers `/embeddings` from an `Embedder`; what it cannot embed whole it refuses, never cuts."""

    def __init__(self, model: str, embedder: Embedder) -> None:
        self._model = model
        self._embedder = embedder

    @asynccontextmanager
    async def open(self, call: UpstreamCall, deadline: Deadline) -> AsyncIterator[UpstreamResponse]:
        """Embed while the answer is read, so that the deadline of reading holds; see `Backend.open`."""
        yield UpstreamResponse("application/json", Iterated(self._answer(_asked(self._model, call.body))))

    async def close(self) -> None:
        """Do nothing: the encoder belongs to the cache."""

    async def _answer(self, asked: "_Body") -> AsyncIterator[bytes]:
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        await self._loaded()
        vectors: list[Vector] = []
        for start in range(0, len(texts), BATCH):
            vectors += await self._embedded(texts[start : start + BATCH], start)
        yield _rendered(self._model, vectors, texts, is_base64=asked.encoding_format == "base64")

    async def _loaded(self) -> None:
        """Wait for the encoder, which needs a few seconds after the start; what is missing then is told by itself."""
        for _ in range(LONGEST_LOADING_POLLS):
            if self._embedder.is_ready():
                return
            await asyncio.sleep(POLL_S)

    async def _embedded(self, texts: Sequence[str], start: int) -> list[Vector]:
        try:
            vectors = await self._embedder.embed(texts)
        except EncoderUnavailable as problem:
            raise AttemptError(AttemptOutcome.REFUSED, str(problem), http_status=503) from problem
        whole = []
        for at, vector in enumerate(vectors, start):
            if vector is None:
                raise _refused(f"input {at} is longer than the 256 word pieces that {self._model} reads; split it.")
            whole.append(vector)
        return whole


def encoder_deployment(settings: EncoderDeployment, embedder: Embedder) -> Deployment:
    """Return the registry's view of the gateway's encoder."""
    return Deployment(
        name=settings.name,
        model=settings.model,
        price=settings.price,
        backend=EncoderBackend(settings.model, embedder),
        local=True,
        serves=settings.serves,
    )


def _asked(model: str, body: bytes) -> _Body:
    try:
        asked = _decoder.decode(body)
    except msgspec.ValidationError as problem:
        raise _refused(f"{model} takes texts, no token ids, as float or base64 ({problem}).") from problem
    if asked.dimensions not in (None, DIMENSIONS):
        raise _refused(f"{model} has {DIMENSIONS} dimensions; leave 'dimensions' out.")
    return asked


def _refused(message: str) -> AttemptError:
    return AttemptError(AttemptOutcome.REFUSED, message, http_status=400, retryable=False)


def _rendered(model: str, vectors: Sequence[Vector], texts: Sequence[str], *, is_base64: bool) -> bytes:
    rows = [
        {"object": "embedding", "index": at, "embedding": _packed(vector) if is_base64 else vector.tolist()}
        for at, vector in enumerate(vectors)
    ]
    tokens = sum(-(-len(text.encode()) // BYTES_PER_TOKEN) for text in texts)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return msgspec.json.encode({"object": "list", "data": rows, "model": model, "usage": usage})


def _packed(vector: Vector) -> str:
    """Return little-endian float32 in base64, as the OpenAI API sends it."""
    return base64.b64encode(np.asarray(vector, dtype="<f4").tobytes()).decode()
