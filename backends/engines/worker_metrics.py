"""Renders a worker's gauges and counters as Prometheus text, in the vocabulary that every engine kind is mapped to."""

from collections.abc import Mapping
from dataclasses import dataclass

from backends.engines.generation import Gauges

OUTCOMES = ("completed", "cancelled", "failed", "refused")


@dataclass(slots=True)
class Latencies:
    """Sums and counts of the times to the first token and of the gaps after it, in seconds."""

    ttft_s: float = 0.0
    ttft_count: int = 0
    itl_s: float = 0.0
    itl_count: int = 0

    def answered(self, began_s: float, first_s: float, last_s: float, tokens: int) -> None:
        """Take an answer that began; the gaps are those between its first and its last token."""
        self.ttft_s += first_s - began_s
        self.ttft_count += 1
        if tokens > 1:
            self.itl_s += last_s - first_s
            self.itl_count += tokens - 1


def render_metrics(model: str, gauges: Gauges, counts: Mapping[str, int], latencies: Latencies) -> bytes:
    """Return the exposition; `counts` holds `prompt_tokens`, `generation_tokens` and one count per outcome."""
    label = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    lines: list[str] = []

    def add(name: str, kind: str, explanation: str, value: float) -> None:
        full = f"headgate_engine_{name}"
        lines.extend((f"# HELP {full} {explanation}", f"# TYPE {full} {kind}", f'{full}{{model="{label}"}} {value}'))

    add("requests_running", "gauge", "Completions in the batch.", gauges.running)
    add("requests_waiting", "gauge", "Completions that the last step did not schedule.", gauges.waiting)
    add("kv_cache_usage_ratio", "gauge", "Used share of the KV cache.", gauges.cache_usage_ratio)
    add("stalled_seconds", "gauge", "Seconds without a finished step while there was work.", gauges.stalled_s)
    add("steps_total", "counter", "Steps of the batch.", gauges.steps)
    add("prompt_tokens_total", "counter", "Prompt tokens of ended requests.", counts.get("prompt_tokens", 0))
    add("generation_tokens_total", "counter", "Generated tokens of ended requests.", counts.get("generation_tokens", 0))
    if gauges.drafted_tokens is not None:
        add("drafted_tokens_total", "counter", "Tokens that were guessed ahead, at most.", gauges.drafted_tokens)
        add("accepted_tokens_total", "counter", "Guessed tokens that stood.", gauges.accepted_tokens or 0)
    for name, about, total_s, count in (
        ("ttft", "Time to the first token in the engine.", latencies.ttft_s, latencies.ttft_count),
        ("itl", "Gaps between tokens.", latencies.itl_s, latencies.itl_count),
    ):
        full = f"headgate_engine_{name}_seconds"
        lines.extend((f"# HELP {full} {about}", f"# TYPE {full} summary"))
        lines.extend((f'{full}_sum{{model="{label}"}} {total_s:.6f}', f'{full}_count{{model="{label}"}} {count}'))
    full = "headgate_engine_requests_total"
    lines.extend((f"# HELP {full} Ended requests by outcome.", f"# TYPE {full} counter"))
    lines.extend(f'{full}{{model="{label}",outcome="{name}"}} {counts.get(name, 0)}' for name in OUTCOMES)
    return ("\n".join(lines) + "\n").encode()
