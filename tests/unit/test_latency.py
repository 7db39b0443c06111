"""What a deployment's forecast says after what its attempts took."""

import pytest

from backends.latency import HALF_LIFE_S, PEAK_S, TOLD_S, Flight, LatencyTracker
from core.plan import LatencyForecast


class Life:
    """A tracker and its time, moved by hand."""

    def __init__(self) -> None:
        self.tracker = LatencyTracker()
        self.now_s = 1_000.0

    def begin(self, input_tokens: int = 100, *, streamed: bool = True) -> Flight:
        return self.tracker.begin(input_tokens, streamed=streamed, now_s=self.now_s)

    def stream(self, first_ms: float, input_tokens: int = 100, output_tokens: int = 11, pace_ms: float = 5.0) -> None:
        flight = self.begin(input_tokens)
        self.now_s += first_ms / 1000
        self.tracker.first_byte(flight, self.now_s)
        self.now_s += pace_ms * (output_tokens - 1) / 1000
        self.tracker.complete(flight, output_tokens, self.now_s)
        self.tracker.end(flight)

    def plain(self, took_ms: float, output_tokens: int) -> None:
        flight = self.begin(streamed=False)
        self.now_s += took_ms / 1000
        self.tracker.complete(flight, output_tokens, self.now_s)
        self.tracker.end(flight)

    @property
    def forecast(self) -> LatencyForecast:
        forecast = self.tracker.forecast(self.now_s)
        assert forecast is not None
        return forecast


@pytest.fixture
def life() -> Life:
    return Life()


def test_nothing_is_forecast_of_a_deployment_that_never_answered(life: Life) -> None:
    assert life.tracker.forecast(life.now_s) is None
    assert life.tracker.slow_first_byte_ms(100, life.now_s) is None


def test_a_steady_deployment_is_forecast_as_it_was(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0)
    assert life.forecast.ttft_ms(100) == pytest.approx(50.0, rel=0.06)
    assert life.forecast.total_ms(100, 101) == pytest.approx(50.0 + 5.0 * 101, rel=0.06)


def test_long_prompts_are_told_from_short_ones(life: Life) -> None:
    for tokens in (100, 1_000, 4_000) * 10:
        life.stream(20.0 + 0.1 * tokens, input_tokens=tokens)
    assert life.forecast.ms_per_input_token == pytest.approx(0.1, rel=0.05)
    assert life.forecast.ttft_ms(2_000) == pytest.approx(220.0, rel=0.06)


def test_requests_under_way_are_told_from_an_idle_deployment(life: Life) -> None:
    for others in (0, 4, 8) * 10:
        waiting = [life.begin() for _ in range(others)]
        life.stream(20.0 + 10.0 * others)
        for flight in waiting:
            life.tracker.end(flight)
    idle_ms = life.forecast.ttft_ms(100)
    busy = [life.begin() for _ in range(8)]
    assert len(busy) == 8
    assert idle_ms == pytest.approx(20.0, abs=4.0)
    assert life.forecast.queue_ms == pytest.approx(80.0, rel=0.1)


def test_one_size_of_prompt_gives_no_slope(life: Life) -> None:
    for first_ms in (40.0, 60.0) * 10:
        life.stream(first_ms)
    assert (life.forecast.ms_per_input_token, life.forecast.queue_ms) == (0.0, 0.0)


def test_a_slope_is_never_below_zero(life: Life) -> None:
    for tokens, first_ms in ((100, 90.0), (1_000, 30.0)) * 10:
        life.stream(first_ms, input_tokens=tokens)
    assert life.forecast.ms_per_input_token == 0.0
    assert life.forecast.ttft_ms(100_000) < 100.0


def test_a_sudden_rise_is_forecast_at_once_and_forgotten_slowly(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0)
    life.stream(500.0)
    assert life.forecast.ttft_ms(100) > 450.0
    life.now_s += 3 * PEAK_S
    assert life.forecast.ttft_ms(100) < 100.0


def test_usual_jitter_does_not_move_the_forecast(life: Life) -> None:
    for first_ms in (40.0, 50.0, 60.0) * 20:
        life.stream(first_ms)
    assert life.forecast.ttft_ms(100) < 62.0


def test_who_waits_too_long_is_forecast_before_the_answer_comes(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0)
    flight = life.begin()
    life.now_s += 0.4
    assert life.forecast.queue_ms == pytest.approx(350.0, rel=0.05)
    life.tracker.end(flight)
    assert life.forecast.queue_ms == 0.0


def test_one_stuck_request_among_others_says_little(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0)
    life.begin()
    life.now_s += 30.0
    life.stream(50.0)
    assert life.forecast.queue_ms == 0.0


def test_requests_that_just_came_do_not_hide_one_that_waits_too_long(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0)
    life.begin()
    life.now_s += 0.4
    for _ in range(5):
        life.begin()
    assert life.forecast.queue_ms == pytest.approx(350.0, rel=0.05)


def test_a_plain_answer_teaches_the_pace_and_no_first_token(life: Life) -> None:
    for _ in range(10):
        life.plain(600.0, 100)
    assert life.forecast.ms_per_output_token == pytest.approx(6.0, rel=0.06)
    assert life.forecast.ttft_ms(1_000) == 0.0
    assert life.tracker.slow_first_byte_ms(100, life.now_s) is None


def test_plain_answers_that_turn_slow_are_forecast_at_once(life: Life) -> None:
    for _ in range(20):
        life.plain(600.0, 100)
    life.plain(6_000.0, 100)
    assert life.forecast.total_ms(100, 100) > 5_500.0


def test_an_answer_without_tokens_teaches_nothing(life: Life) -> None:
    life.plain(600.0, 0)
    assert life.tracker.forecast(life.now_s) is None


def test_slow_means_the_95th_percentile(life: Life) -> None:
    for _ in range(5):
        for first_ms in (*(50.0,) * 18, 200.0, 200.0):
            life.stream(first_ms)
    life.now_s += 10 * PEAK_S
    slow_ms = life.tracker.slow_first_byte_ms(100, life.now_s)
    assert slow_ms == pytest.approx(200.0, rel=0.06)
    assert life.forecast.ttft_ms(100) < 60.0


def test_what_nobody_used_for_long_has_no_forecast_any_more(life: Life) -> None:
    life.stream(50.0)
    life.now_s += 2 * HALF_LIFE_S
    assert life.tracker.forecast(life.now_s) is None


def test_requests_under_way_are_counted_until_they_end(life: Life) -> None:
    first, second = life.begin(), life.begin(streamed=False)
    assert (life.tracker.in_flight, second.others) == (2, 1)
    life.tracker.end(first)
    life.tracker.end(second)
    assert life.tracker.in_flight == 0


def test_who_is_late_again_soon_after_a_peak_is_as_late_as_it_was(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0)
    life.stream(2_000.0)
    life.now_s += 2 * PEAK_S
    faded_ms = life.forecast.queue_ms
    flight = life.begin()
    life.now_s += 0.1
    assert faded_ms < 300.0
    assert life.forecast.queue_ms > 1_900.0
    life.tracker.end(flight)


def test_an_attempt_that_was_outrun_counts_as_several_times_as_late(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0)
    slow, early = life.begin(), life.begin()
    life.tracker.outrun(early, life.now_s + 0.01)
    assert life.tracker.wait_ms(life.now_s + 0.01) == 0.0
    life.now_s += 0.5
    life.tracker.outrun(slow, life.now_s)
    assert life.tracker.wait_ms(life.now_s) == pytest.approx(1_950.0, rel=0.05)


def test_an_engines_own_queue_is_waited_for_as_long_as_its_batch_takes(life: Life) -> None:
    for _ in range(20):
        life.stream(50.0, output_tokens=11, pace_ms=5.0)
    life.tracker.told(running=4, queued=40, now_s=life.now_s)
    assert life.forecast.queue_ms == pytest.approx(40 / 4 * 100.0, rel=0.1)
    slow_ms = life.tracker.slow_first_byte_ms(100, life.now_s)
    assert slow_ms is not None
    assert slow_ms > 1_000.0
    life.now_s += TOLD_S + 0.1
    assert life.forecast.queue_ms == 0.0


def test_what_others_send_an_engine_is_under_way_there(life: Life) -> None:
    mine = [life.begin() for _ in range(3)]
    life.tracker.told(running=10, queued=0, now_s=life.now_s)
    assert life.tracker.under_way(life.now_s) == 10
    for flight in mine:
        life.tracker.end(flight)
    assert life.tracker.under_way(life.now_s) == 7
    assert life.begin().others == 7
    life.now_s += TOLD_S + 0.1
    assert life.tracker.under_way(life.now_s) == 1


def test_what_an_engine_counts_less_of_than_we_sent_takes_nothing_away(life: Life) -> None:
    flights = [life.begin() for _ in range(3)]
    life.tracker.told(running=1, queued=0, now_s=life.now_s)
    assert life.tracker.under_way(life.now_s) == len(flights)


def test_load_by_others_is_learned_as_ours_is(life: Life) -> None:
    for others in (0, 4, 8) * 10:
        life.tracker.told(running=others, queued=0, now_s=life.now_s)
        life.stream(20.0 + 10.0 * others)
    life.tracker.told(running=8, queued=0, now_s=life.now_s)
    assert life.forecast.queue_ms == pytest.approx(80.0, rel=0.1)
