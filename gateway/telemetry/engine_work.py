"""What hosted engines and GPUs tell of their work, in `/metrics`: the last look, never a wait for an engine."""

from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from backends.engines.engine_watch import EngineWatch
from backends.engines.gpu_use import GpuUse
from gateway.telemetry.families import Family

ENGINE = ("engine",)
GAUGES: Mapping[str, Family] = {
    "queued": Family("gauge", "engine_queue_depth", "Completions that wait for an engine's batch.", ENGINE),
    "running": Family("gauge", "engine_running", "Completions in an engine's batch.", ENGINE),
    "kv_usage_ratio": Family("gauge", "engine_kv_usage_ratio", "Used share of an engine's KV cache.", ENGINE),
}
COUNTERS: Mapping[str, Family] = {
    "prompt_tokens": Family("counter", "engine_prompt_tokens", "Prompt tokens.", ENGINE),
    "output_tokens": Family("counter", "engine_output_tokens", "Generated tokens.", ENGINE),
    "prefix_queried_tokens": Family("counter", "engine_prefix_queried_tokens", "Prompt tokens looked up.", ENGINE),
    "prefix_hit_tokens": Family("counter", "engine_prefix_hit_tokens", "Of those, found in the prefix cache.", ENGINE),
    "drafted_tokens": Family("counter", "engine_drafted_tokens", "Tokens guessed ahead.", ENGINE),
    "accepted_tokens": Family("counter", "engine_accepted_tokens", "Of those, tokens that stood.", ENGINE),
    "ttft_s": Family("counter", "engine_ttft_seconds", "Sum of the times to the first token in an engine.", ENGINE),
    "ttft_count": Family("counter", "engine_first_tokens", "First tokens, to divide that sum by.", ENGINE),
    "itl_s": Family("counter", "engine_itl_seconds", "Sum of the gaps between tokens in an engine.", ENGINE),
    "itl_count": Family("counter", "engine_token_gaps", "Gaps, to divide that sum by.", ENGINE),
}
SPEED = Family("gauge", "engine_output_tokens_per_s", "Tokens per second between the last two looks.", ENGINE)
GPU_BUSY = Family("gauge", "gpu_utilisation_ratio", "How busy a GPU is, where nvidia-smi tells.", ("device",))
GPU_MEMORY = Family("gauge", "gpu_memory_used_bytes", "Used memory of a GPU, where nvidia-smi tells.", ("device",))
FAMILIES = (*GAUGES.values(), *COUNTERS.values(), SPEED, GPU_BUSY, GPU_MEMORY)


class EngineWork(Collector):
    """Collects from the last looks; an engine that does not tell a figure has no sample of it."""

    def __init__(
        self, names: Callable[[], Iterable[str]], watch: EngineWatch, gpus: Callable[[], Iterable[GpuUse]]
    ) -> None:
        self._names = names
        self._watch = watch
        self._gpus = gpus

    def collect(self) -> Iterator[Metric]:
        """Yield the families."""
        looks = {name: look for name in self._names() if (look := self._watch.last(name)) is not None}
        for names, is_gauge in ((GAUGES, True), (COUNTERS, False)):
            for field, family in names.items():
                metric = family.gauge() if is_gauge else family.counter()
                for name, look in looks.items():
                    value = getattr(look.figures, field)
                    if value is not None:
                        metric.add_metric((name,), value)
                yield metric
        speed, busy, used = SPEED.gauge(), GPU_BUSY.gauge(), GPU_MEMORY.gauge()
        for name, look in looks.items():
            if look.rates.output_tokens_per_s is not None:
                speed.add_metric((name,), look.rates.output_tokens_per_s)
        for gpu in self._gpus():
            if gpu.utilisation_ratio is not None:
                busy.add_metric((gpu.device,), gpu.utilisation_ratio)
            if gpu.memory_used_bytes is not None:
                used.add_metric((gpu.device,), gpu.memory_used_bytes)
        yield from (speed, busy, used)
