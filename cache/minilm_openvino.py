"""all-MiniLM-L6-v2 on OpenVINO, built from the same checked weights: the default on a CPU.

The graph is written down here (BERT, 6 layers, mean pooling, L2 norm), so that neither torch nor a converter is
loaded: ready in about a second instead of seven. It computes in bfloat16 where the CPU has it and in float32 elsewhere;
both agree with the reference to a cosine of .9999 (tested), far finer than any threshold, so they share a fingerprint.

One graph takes batches of any shape. A graph of changing shape prepares itself anew at each call, which costs a short
text a third of its time, so single texts of `SINGLE_PIECES` and less go to graphs of fixed shape, padded, of 31 MB each
(benchmarks/results/cache_speed.json, encoder: 23 word pieces on one thread with AVX-512 BF16). Tried and left out:
eight-bit weights and activations, a quarter faster alone and no faster in a batch, at a cosine of .998; one matrix for
query, key and value, no faster.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.mapped_weights import MappedWeights
from core.cached import Vector

_LAYERS = 6
_HEADS = 12
_HEAD_SIZE = 32
_HIDDEN = 384
_EPSILON = 1e-12
_MASKED = -10_000.0
_MAX_CHARS = 4_096
_WINDOW = 256
SINGLE_PIECES = (16, 24, 32)
"""Lengths, in word pieces, for which a single text has a graph of its own."""
_MOST_TOGETHER = 16
"""More make no text cheaper, and those of one length apart from those of another need less padding."""
_LEAST_TOGETHER = 4
"""Fewer short texts are faster one by one than together in the graph of any shape."""
_CONFIGURATION = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": 1,
    "NUM_STREAMS": 1,
    "ENABLE_CPU_PINNING": False,
    "INFERENCE_PRECISION_HINT": "bf16",
}


class OpenVinoMiniLm:
    """The encoder in one CPU thread; call it from one thread at a time."""

    def __init__(self, folder: Path) -> None:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # nothing phones home
        import openvino
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        mapped = MappedWeights(folder / "model.safetensors")
        self._weights = mapped.tensors  # shared with the graphs, so they must not go first
        self._words = self._weights["embeddings.word_embeddings.weight"]
        kind = self._weights["embeddings.token_type_embeddings.weight"][0]
        self._places = self._weights["embeddings.position_embeddings.weight"][:_WINDOW] + kind
        core = openvino.Core()
        self._any_shape = self._request(core, -1, -1)
        self._single = {pieces: self._request(core, 1, pieces) for pieces in SINGLE_PIECES}
        mapped.let_go()  # the graphs have their own, in their own precision

    def encode(self, texts: Sequence[str]) -> list[Vector | None]:
        """Return (384,) float32 L2-normalised vectors; None beyond 256 word pieces."""
        pieces = [None if len(text) > _MAX_CHARS else self._tokenizer.encode(text).ids for text in texts]
        fitting = {at: ids for at, ids in enumerate(pieces) if ids is not None and len(ids) <= _WINDOW}
        vectors: list[Vector | None] = [None] * len(texts)
        for group in alike_in_length(fitting):
            rows = self._infer([fitting[at] for at in group])
            for at, row in zip(group, rows, strict=True):
                vectors[at] = row
        return vectors

    def _infer(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        longest = max(len(ids) for ids in batch)
        if longest > SINGLE_PIECES[-1] or len(batch) >= _LEAST_TOGETHER:
            return self._run(self._any_shape, batch, longest)
        return np.concatenate([self._run_alone(ids) for ids in batch])

    def _run_alone(self, ids: Sequence[int]) -> NDArray[np.float32]:
        width = next(width for width in SINGLE_PIECES if width >= len(ids))
        return self._run(self._single[width], [ids], width)

    def _run(self, request: Any, batch: Sequence[Sequence[int]], width: int) -> NDArray[np.float32]:
        embedded = np.zeros((len(batch), width, _HIDDEN), dtype=np.float32)
        mask = np.zeros((len(batch), width), dtype=np.float32)
        for row, ids in enumerate(batch):
            np.add(self._words[ids], self._places[: len(ids)], out=embedded[row, : len(ids)])
            mask[row, : len(ids)] = 1.0
        found = request.infer([embedded, mask], share_inputs=True, share_outputs=True)
        rows: NDArray[np.float32] = np.array(found[0], dtype=np.float32)  # a copy: the next call writes there again
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows

    def _request(self, core: Any, texts: int, pieces: int) -> Any:
        """Compile the graph for that shape, -1 being any."""
        graph = _graph(self._weights)
        graph.reshape({0: [texts, pieces, _HIDDEN], 1: [texts, pieces]})
        return core.compile_model(graph, "CPU", _CONFIGURATION).create_infer_request()


def alike_in_length(fitting: dict[int, list[int]]) -> Iterator[list[int]]:
    """Yield groups of at most `_MOST_TOGETHER` texts whose padding stays below half of the longest."""
    group: list[int] = []
    for at in sorted(fitting, key=lambda one: len(fitting[one])):
        if len(group) == _MOST_TOGETHER or (group and len(fitting[at]) > 2 * len(fitting[group[0]])):
            yield group
            group = []
        group.append(at)
    if group:
        yield group


def _graph(weights: dict[str, NDArray[Any]]) -> Any:
    """Write the encoder down: embedded pieces (n, t, 384) and mask (n, t) to vectors (n, 384), all float32."""
    import openvino
    from openvino import opset15 as op

    build = _Builder(op, weights)
    embedded = op.parameter([-1, -1, _HIDDEN], np.float32, "embedded")
    mask = op.parameter([-1, -1], np.float32, "mask")
    unmasked = op.unsqueeze(op.unsqueeze(mask, 1), 1)
    bias = op.multiply(op.subtract(op.constant(np.float32(1)), unmasked), op.constant(np.float32(_MASKED)))
    hidden = build.layer_norm(embedded, "embeddings.LayerNorm")
    for layer in range(_LAYERS):
        hidden = build.layer(hidden, bias, f"encoder.layer.{layer}.")
    weight, along = op.unsqueeze(mask, 2), op.constant(np.int64(1))
    mean = op.divide(op.reduce_sum(op.multiply(hidden, weight), along), op.reduce_sum(weight, along))
    return openvino.Model([op.normalize_l2(mean, along, _EPSILON, "max")], [embedded, mask], "minilm")


class _Builder:
    """Builds the parts of BERT from named weights."""

    def __init__(self, op: Any, weights: dict[str, NDArray[Any]]) -> None:
        self._op = op
        self._weights = weights

    def layer(self, hidden: Any, bias: Any, prefix: str) -> Any:
        op = self._op
        split = op.constant(np.array([0, 0, _HEADS, _HEAD_SIZE], np.int64))
        swap = op.constant(np.array([0, 2, 1, 3], np.int64))
        join = op.constant(np.array([0, 0, _HIDDEN], np.int64))
        query, key, value = (
            op.transpose(op.reshape(self._linear(hidden, f"{prefix}attention.self.{name}"), split, True), swap)
            for name in ("query", "key", "value")
        )
        attended = op.scaled_dot_product_attention(query, key, value, bias)
        attended = self._linear(op.reshape(op.transpose(attended, swap), join, True), f"{prefix}attention.output.dense")
        hidden = self.layer_norm(op.add(hidden, attended), f"{prefix}attention.output.LayerNorm")
        wide = op.gelu(self._linear(hidden, f"{prefix}intermediate.dense"), "erf")
        return self.layer_norm(op.add(hidden, self._linear(wide, f"{prefix}output.dense")), f"{prefix}output.LayerNorm")

    def layer_norm(self, x: Any, name: str) -> Any:
        last = self._op.constant(np.array([-1], np.int64))
        normal = self._op.mvn(x, last, True, _EPSILON, "inside_sqrt")
        scaled = self._op.multiply(normal, self._constant(f"{name}.weight"))
        return self._op.add(scaled, self._constant(f"{name}.bias"))

    def _linear(self, x: Any, name: str) -> Any:
        product = self._op.matmul(x, self._constant(f"{name}.weight"), False, True)
        return self._op.add(product, self._constant(f"{name}.bias"))

    def _constant(self, name: str) -> Any:
        return self._op.constant(self._weights[name], shared_memory=True)
