"""What engines tell, in one vocabulary: by kind, without inventing a figure."""

import pytest

from backends.engines.engine_figures import Figures, read_figures
from backends.engines.engine_watch import Look, rates_between
from backends.engines.generation import Gauges
from backends.engines.gpu_use import GpuUse, parse_gpu_use
from backends.engines.worker_metrics import Latencies, render_metrics

VLLM = """
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 3.0
vllm:num_requests_running{engine="1",model_name="m"} 2.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:kv_cache_usage_perc{engine="1",model_name="m"} 0.5
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 100.0
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 60.0
vllm:spec_decode_num_draft_tokens_total{engine="0"} 10.0
vllm:spec_decode_num_accepted_tokens_total{engine="0"} 7.0
vllm:time_to_first_token_seconds_bucket{le="0.1"} 1.0
vllm:time_to_first_token_seconds_sum{engine="0"} 1.5
vllm:time_to_first_token_seconds_count{engine="0"} 5.0
vllm:generation_tokens_total{engine="0"} nonsense
"""


def test_vllm_is_read_over_all_its_engines() -> None:
    figures = read_figures("vllm", VLLM)
    assert (figures.running, figures.queued, figures.kv_usage_ratio) == (5, 4, 0.5)
    assert (figures.prefix_hit_tokens, figures.prefix_queried_tokens) == (60, 100)
    assert (figures.accepted_tokens, figures.drafted_tokens) == (7, 10)
    assert (figures.ttft_s, figures.ttft_count) == (1.5, 5)
    assert figures.output_tokens is None
    assert figures.itl_s is None


def test_llama_server_tells_less() -> None:
    text = "llamacpp:requests_processing 2\nllamacpp:requests_deferred 1\nllamacpp:tokens_predicted_total 40\n"
    assert read_figures("llama-server", text) == Figures(queued=1, running=2, output_tokens=40)
    text = "llamacpp:spec_decode_num_draft_tokens_total 9\nllamacpp:spec_decode_num_accepted_tokens_total 6\n"
    assert read_figures("llama-server", text) == Figures(drafted_tokens=9, accepted_tokens=6)


def test_our_workers_are_read_as_they_write() -> None:
    gauges = Gauges(running=2, waiting=1, cache_usage_ratio=0.5, drafted_tokens=8, accepted_tokens=6)
    latencies = Latencies()
    latencies.answered(began_s=1.0, first_s=1.5, last_s=2.5, tokens=11)
    latencies.answered(began_s=1.0, first_s=1.25, last_s=1.25, tokens=1)
    text = render_metrics('a "model"', gauges, {"prompt_tokens": 7, "generation_tokens": 12}, latencies).decode()
    assert read_figures("openvino", text) == Figures(
        queued=1,
        running=2,
        kv_usage_ratio=0.5,
        drafted_tokens=8,
        accepted_tokens=6,
        prompt_tokens=7,
        output_tokens=12,
        ttft_s=0.75,
        ttft_count=2,
        itl_s=1.0,
        itl_count=10,
    )


def test_an_engine_that_does_not_guess_has_no_drafts() -> None:
    text = render_metrics("m", Gauges(), {}, Latencies()).decode()
    assert read_figures("transformers", text).drafted_tokens is None


@pytest.mark.parametrize("text", ["", "\0\xff", "vllm:num_requests_running", "vllm:num_requests_running{"])
def test_garbage_tells_nothing(text: str) -> None:
    assert read_figures("command", text) == Figures()


def test_rates_are_means_of_what_happened_in_between() -> None:
    before = Look(10.0, 1, Figures(output_tokens=100, ttft_s=1.0, ttft_count=2, itl_s=1.0, itl_count=100))
    after = Figures(output_tokens=300, ttft_s=1.5, ttft_count=4, itl_s=1.0, itl_count=100)
    rates = rates_between(before, 12.0, after)
    assert (rates.output_tokens_per_s, rates.ttft_ms, rates.itl_ms) == (100, 250, None)


def test_a_counter_that_fell_gives_no_rate() -> None:
    before = Look(10.0, 1, Figures(output_tokens=100))
    assert rates_between(before, 12.0, Figures(output_tokens=5)).output_tokens_per_s is None


def test_gpus_are_read_from_nvidia_smi_also_where_a_figure_is_missing() -> None:
    told = "0, 35, 1024, 81920\n1, [N/A], 10, 20\nno devices were found\n"
    assert parse_gpu_use(told) == (
        GpuUse("cuda:0", 0.35, 1024 << 20, 81920 << 20),
        GpuUse("cuda:1", None, 10 << 20, 20 << 20),
    )
