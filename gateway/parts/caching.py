"""Join the cache's parts: its encoder and index, its guard, and the evidence that it keeps from start to start."""

from collections.abc import Callable
from dataclasses import dataclass

from cache.batcher import BatchingEmbedder
from cache.control import CacheControl
from cache.embedder import Embedder
from cache.evidence_file import load_evidence, save_evidence
from cache.fingerprint import Fingerprinter
from cache.guard import Guard
from cache.minilm import bundled_lexicon
from cache.semantic_cache import SemanticCache
from gateway.hosting.encoder_meter import EncoderMeter
from gateway.parts.cache_index import PlacedIndex
from gateway.parts.ground import Ground
from gateway.parts.stores import Stores


@dataclass(frozen=True, slots=True)
class Caching:
    """The cache with its encoder, what controls it from outside the path of a request, and what writes its evidence."""

    cache: SemanticCache
    embedder: Embedder
    control: CacheControl
    save: Callable[[], None]


def build_caching(ground: Ground, stores: Stores, embedder: BatchingEmbedder, placed: PlacedIndex) -> Caching:
    """Build the cache over the entries of `stores`; saving its evidence also writes what encoding took."""
    guard = Guard(bundled_lexicon())
    file = ground.settings.own("cache-evidence").with_suffix(".json")
    evidence = load_evidence(file, guard.table, embedder.fingerprint)
    fingerprinter = Fingerprinter(ground.pepper)
    cache = SemanticCache(fingerprinter, stores.entries, placed.index, embedder, ground.clock, guard, evidence)
    control = CacheControl(cache, stores.entries, stores.catalogue, ground.clock, stores.sealer, placed.place)
    meter = EncoderMeter(lambda: embedder.cpu_s, ground.settings.beside("engine-hours"), ground.clock)

    def save() -> None:
        save_evidence(file, evidence)
        meter.write()

    return Caching(cache, embedder, control, save)
