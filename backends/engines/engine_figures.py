"""What an engine tells of its work, read from its own metrics in one vocabulary, whatever kind of engine it is.

vLLM's names as seen live in version 0.32, llama-server's as in its `/metrics`, ours as in `worker_metrics`. Figures
that an engine does not tell are None, never zero.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from backends.engines.recipes import EngineKind


@dataclass(frozen=True, slots=True)
class Figures:
    """One look at an engine; sums and counts grow from the start of its process.

    Attributes:
        queued: completions that wait for the batch.
        running: completions in the batch.
        kv_usage_ratio: used share of the KV cache.
        prefix_queried_tokens: prompt tokens looked up in the prefix cache.
        prefix_hit_tokens: of those, how many were there.
        drafted_tokens: tokens that were guessed ahead.
        accepted_tokens: of those, how many stood.
        prompt_tokens: of all requests.
        output_tokens: of all requests.
        ttft_s: sum of the times to the first token in the engine.
        ttft_count: how many that are.
        itl_s: sum of the gaps between tokens.
        itl_count: how many that are.
    """

    queued: float | None = None
    running: float | None = None
    kv_usage_ratio: float | None = None
    prefix_queried_tokens: float | None = None
    prefix_hit_tokens: float | None = None
    drafted_tokens: float | None = None
    accepted_tokens: float | None = None
    prompt_tokens: float | None = None
    output_tokens: float | None = None
    ttft_s: float | None = None
    ttft_count: float | None = None
    itl_s: float | None = None
    itl_count: float | None = None


VLLM: Mapping[str, str] = {
    "vllm:num_requests_waiting": "queued",
    "vllm:num_requests_running": "running",
    "vllm:kv_cache_usage_perc": "kv_usage_ratio",
    "vllm:prefix_cache_queries_total": "prefix_queried_tokens",
    "vllm:prefix_cache_hits_total": "prefix_hit_tokens",
    "vllm:spec_decode_num_draft_tokens_total": "drafted_tokens",
    "vllm:spec_decode_num_accepted_tokens_total": "accepted_tokens",
    "vllm:prompt_tokens_total": "prompt_tokens",
    "vllm:generation_tokens_total": "output_tokens",
    "vllm:time_to_first_token_seconds_sum": "ttft_s",
    "vllm:time_to_first_token_seconds_count": "ttft_count",
    "vllm:inter_token_latency_seconds_sum": "itl_s",
    "vllm:inter_token_latency_seconds_count": "itl_count",
}
LLAMA_SERVER: Mapping[str, str] = {
    "llamacpp:requests_deferred": "queued",
    "llamacpp:requests_processing": "running",
    "llamacpp:kv_cache_usage_ratio": "kv_usage_ratio",  # gone from later versions
    "llamacpp:spec_decode_num_draft_tokens_total": "drafted_tokens",
    "llamacpp:spec_decode_num_accepted_tokens_total": "accepted_tokens",
    "llamacpp:prompt_tokens_total": "prompt_tokens",
    "llamacpp:tokens_predicted_total": "output_tokens",
}
OURS: Mapping[str, str] = {
    "headgate_engine_requests_waiting": "queued",
    "headgate_engine_requests_running": "running",
    "headgate_engine_kv_cache_usage_ratio": "kv_usage_ratio",
    "headgate_engine_drafted_tokens_total": "drafted_tokens",
    "headgate_engine_accepted_tokens_total": "accepted_tokens",
    "headgate_engine_prompt_tokens_total": "prompt_tokens",
    "headgate_engine_generation_tokens_total": "output_tokens",
    "headgate_engine_ttft_seconds_sum": "ttft_s",
    "headgate_engine_ttft_seconds_count": "ttft_count",
    "headgate_engine_itl_seconds_sum": "itl_s",
    "headgate_engine_itl_seconds_count": "itl_count",
}
NAMES: Mapping[EngineKind, Mapping[str, str]] = {
    "openvino": OURS,
    "transformers": OURS,
    "vllm": VLLM,
    "llama-server": LLAMA_SERVER,
    "command": {**VLLM, **LLAMA_SERVER},
}


ANY: Mapping[str, str] = {**VLLM, **LLAMA_SERVER, **OURS}


def read_figures(kind: EngineKind | None, exposition: str) -> Figures:
    """Read Prometheus text; samples of one name are added, of ratios the largest counts. Kind None: any of them."""
    names = ANY if kind is None else NAMES[kind]
    found: dict[str, float] = {}
    for line in exposition.splitlines():
        if not line or line[0] == "#":
            continue
        field = names.get(line.partition("{")[0].partition(" ")[0])
        if field is None:
            continue
        try:
            value = float(line.rpartition("}")[2].split()[0] if "}" in line else line.split()[1])
        except (ValueError, IndexError):
            continue
        known = found.get(field)
        ratio = field.endswith("_ratio")
        found[field] = value if known is None else max(known, value) if ratio else known + value
    return Figures(**found)
