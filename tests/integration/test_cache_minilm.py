"""The real encoder: known neighbours, its window, its checked weights, and a paraphrase served end to end."""

import asyncio
import shutil
from pathlib import Path

import numpy as np
import pytest

from cache.batcher import Encoder
from cache.entry_store import MemoryEntryStore
from cache.faiss_index import FaissIndex
from cache.fingerprint import Fingerprinter
from cache.guard import Guard
from cache.minilm import MiniLm, bundled_lexicon, bundled_model_dir, checked, load_minilm
from cache.minilm_openvino import SINGLE_PIECES, OpenVinoMiniLm, alike_in_length
from cache.semantic_cache import SemanticCache
from core.cached import NearHit, SemanticHit
from core.clock import SystemClock
from tests.caching import answer, caller, policy, request

TEXTS = [
    "Rain?",
    "How long does rice cook?",
    "Which film won the first prize in Venice in 1998, and who directed it?",
    "LIST 3 rivers -- in Peru; no more!",
    "Wie heißt die Hauptstadt von Österreich? 你好",
    "Explain how a bill becomes a law. " * 6,
    "A boat leaves at 7:45 and sails 12.5 miles. " * 16,
]


@pytest.fixture(scope="module")
def reference() -> MiniLm:
    return MiniLm(bundled_model_dir())


@pytest.fixture(scope="module")
def fast() -> OpenVinoMiniLm:
    return OpenVinoMiniLm(bundled_model_dir())


@pytest.fixture(params=["reference", "fast"])
def encoder(request: pytest.FixtureRequest, reference: MiniLm, fast: OpenVinoMiniLm) -> Encoder:
    return reference if request.param == "reference" else fast


def test_the_fast_runtime_agrees_with_the_reference_alone_and_in_a_batch(
    reference: MiniLm, fast: OpenVinoMiniLm
) -> None:
    expected = np.stack([one for one in reference.encode(TEXTS) if one is not None])
    batched = np.stack([one for one in fast.encode(TEXTS) if one is not None])
    alone = np.stack([one for text in TEXTS for one in fast.encode([text]) if one is not None])
    assert expected.shape == (len(TEXTS), 384)
    assert (expected * batched).sum(axis=1).min() > 0.9999
    assert (expected * alone).sum(axis=1).min() > 0.9999


def test_a_text_has_one_vector_at_each_edge_of_the_graphs_alone_and_in_company(
    reference: MiniLm, fast: OpenVinoMiniLm
) -> None:
    lengths = sorted({pieces + off for pieces in SINGLE_PIECES for off in (-1, 0, 1)} | {3})
    texts = ["river " * (pieces - 2) for pieces in lengths]
    expected = np.stack([one for one in reference.encode(texts) if one is not None])
    for together in (1, 2, len(texts)):
        groups = [texts[at : at + together] for at in range(0, len(texts), together)]
        found = np.stack([one for group in groups for one in fast.encode(group) if one is not None])
        assert (expected * found).sum(axis=1).min() > 0.9999


def test_a_batch_is_grouped_by_length_so_that_short_texts_are_not_padded_to_long_ones(fast: OpenVinoMiniLm) -> None:
    lengths = [5, 200, 6, 10, 120, 11]
    groups = [[lengths[at] for at in group] for group in alike_in_length({at: [0] * n for at, n in enumerate(lengths)})]
    assert groups == [[5, 6, 10], [11], [120, 200]]
    texts = ["river " * (length - 2) for length in lengths]
    together, alone = fast.encode(texts), [fast.encode([text])[0] for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert one is not None
        assert other is not None
        assert float(one @ other) > 0.9999


def test_a_vector_does_not_change_when_the_next_text_is_encoded(fast: OpenVinoMiniLm) -> None:
    (first,) = fast.encode(["How long does rice cook?"])
    assert first is not None
    kept = first.copy()
    fast.encode(["Which film won the prize?"])
    np.testing.assert_array_equal(first, kept)


def test_vectors_are_unit_length_and_near_for_near_meanings(encoder: Encoder) -> None:
    film, movie, rice = encoder.encode(["Which film won?", "Which movie won?", "How long does rice cook?"])
    assert film is not None
    assert movie is not None
    assert rice is not None
    assert film.shape == (384,)
    assert film.dtype == np.float32
    assert float(film @ film) == pytest.approx(1.0, abs=1e-5)
    assert float(film @ movie) > 0.8 > 0.3 > float(film @ rice)


def test_beyond_256_word_pieces_there_is_no_vector(encoder: Encoder) -> None:
    assert [vector is None for vector in encoder.encode(["dog " * 254, "dog " * 255, "a" * 5_000])] == [
        False,
        True,
        True,
    ]


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    shutil.copy(bundled_model_dir() / "config.json", folder)
    (folder / "model.safetensors").write_bytes(b"something else")
    with pytest.raises(ValueError, match="SHA-256"):
        checked(folder)
    with pytest.raises(ValueError, match="SHA-256"):
        MiniLm(folder)


async def test_a_paraphrase_is_served_and_another_number_is_not() -> None:
    clock = SystemClock()
    embedder = load_minilm()
    cache = SemanticCache(
        Fingerprinter(b"0123456789abcdef"),
        MemoryEntryStore(clock),
        FaissIndex(),
        embedder,
        clock,
        Guard(bundled_lexicon()),
    )
    while not embedder.is_ready():  # noqa: ASYNC110 - readiness is no event
        await asyncio.sleep(0.01)
    await cache.store(caller(), request("Sort these numbers: 7 3 9"), policy(), answer("3 7 9"))
    await cache.store(caller(), request("What is the capital of France?"), policy(), answer("Paris."))
    for text in (
        "Please sort the numbers 7 3 9",
        "Which city is the capital of France?",
        "Tell me the capital of France",
    ):
        found = await cache.lookup(caller(), request(text), policy())
        assert isinstance(found, SemanticHit), text
    found = await cache.lookup(caller(), request("Sort these numbers: 7 3 8"), policy())
    assert isinstance(found, NearHit)
    assert found.veto == "number"
    await cache.close()
