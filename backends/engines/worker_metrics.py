"""Renders a worker's gauges and counters as Prometheus text, in the vocabulary that every engine kind is mapped to."""

from collections.abc import Mapping

from backends.engines.generation import Gauges

OUTCOMES = ("completed", "cancelled", "failed", "refused")


def render_metrics(model: str, gauges: Gauges, counts: Mapping[str, int]) -> bytes:
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
    full = "headgate_engine_requests_total"
    lines.extend((f"# HELP {full} Ended requests by outcome.", f"# TYPE {full} counter"))
    lines.extend(f'{full}{{model="{label}",outcome="{name}"}} {counts.get(name, 0)}' for name in OUTCOMES)
    return ("\n".join(lines) + "\n").encode()
