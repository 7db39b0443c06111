"""The same questions through GPTCache with the same encoder; runs in an environment of its own, prints JSON.

GPTCache is configured as its documentation shows: SQLite for entries, FAISS for vectors, similarity by distance. The
model is all-MiniLM-L6-v2 in both runs: on the runtime of this project (`same`), or on sentence-transformers, as
GPTCache's own embedding runs it (`reference`).
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from typing import Any

import numpy as np
from gptcache import Cache, Config  # type: ignore[import-not-found,unused-ignore]
from gptcache.adapter.api import get, put  # type: ignore[import-not-found,unused-ignore]
from gptcache.manager import (  # type: ignore[import-not-found,unused-ignore]
    CacheBase,
    VectorBase,
    get_data_manager,
)
from gptcache.processor.pre import get_prompt  # type: ignore[import-not-found,unused-ignore]
from gptcache.similarity_evaluation.distance import (  # type: ignore[import-not-found,unused-ignore]
    SearchDistanceEvaluation,
)

from benchmarks.cache_speed_data import twenty_token_pairs
from cache.minilm import has_openvino, load_encoder

FOLDER = tempfile.TemporaryDirectory()  # GPTCache writes into the working directory until the very end


def main() -> None:
    count = int(sys.argv[1])
    encoder = load_encoder(reference=sys.argv[2] == "reference" or not has_openvino())

    def embed(text: str, **_: Any) -> Any:
        (vector,) = encoder.encode([text])
        return np.asarray(vector)

    os.chdir(FOLDER.name)
    cache = Cache()
    cache.init(
        pre_embedding_func=get_prompt,
        embedding_func=embed,
        data_manager=get_data_manager(CacheBase("sqlite"), VectorBase("faiss", dimension=384)),
        similarity_evaluation=SearchDistanceEvaluation(),
        config=Config(similarity_threshold=0.8),
    )
    pairs = twenty_token_pairs(count)
    inserts, _ = timed([partial(put, text, "An answer.", cache_obj=cache) for text, _ in pairs])
    lookups, hits = timed([partial(get, text, cache_obj=cache) for _, text in pairs])
    same, _ = timed([partial(get, text, cache_obj=cache) for text, _ in pairs])
    print(
        json.dumps(
            {
                "version": version("gptcache"),
                "entries": count,
                "hit_ratio": sum(hit is not None for hit in hits) / count,
                "semantic_hit_ms": lookups,
                "same_text_hit_ms": same,
                "insert_ms": inserts,
            }
        )
    )


def timed(calls: list[Callable[[], Any]]) -> tuple[dict[str, float], list[Any]]:
    """Return CPU and wall milliseconds of single calls, and what they returned."""
    cpu, wall, returned = [], [], []
    for call in calls:
        started, began = time.process_time(), time.perf_counter()
        returned.append(call())
        cpu.append(1e3 * (time.process_time() - started))
        wall.append(1e3 * (time.perf_counter() - began))
    summed = {
        "cpu_p50": round(statistics.median(cpu), 4),
        "wall_p50": round(statistics.median(wall), 4),
        "wall_p95": round(statistics.quantiles(wall, n=20)[-1], 4),
    }
    return summed, returned


if __name__ == "__main__":
    main()
