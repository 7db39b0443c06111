"""The worker's application over a scripted engine: failures, a full queue, large bodies, and departures."""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from backends.engines.detokenise import ByteDetokeniser, Detokeniser
from backends.engines.generation import Gauges, Piece, PromptRefused, Sampling
from backends.engines.worker_app import MAX_BODY_BYTES, WorkerApp
from backends.engines.worker_request import Limits

LIMITS = Limits(model="m", context_tokens=100, max_output_tokens=40, default_temperature=0)


Headers = list[tuple[bytes, bytes]] | None


class ScriptedEngine:
    """Hands out the given pieces at once, and remembers what was asked of it."""

    def __init__(self, *pieces: Piece, gauges: Gauges | None = None) -> None:
        self._pieces = pieces
        self._gauges = gauges or Gauges()
        self.submitted = asyncio.Event()
        self.cancelled: list[int] = []

    def encode(self, messages: Sequence[Mapping[str, str]]) -> Sequence[int]:
        if messages[0]["content"] == "unspeakable":
            raise PromptRefused("The chat template rejects these messages: no")
        return [1] * sum(len(message["content"]) for message in messages)

    def detokeniser(self) -> Detokeniser:
        return ByteDetokeniser({number: bytes([number]) for number in range(256)})

    def submit(self, prompt: Sequence[int], sampling: Sampling, index: int, sink: Callable[[Piece], None]) -> int:
        for piece in self._pieces:
            if piece.index == index:
                sink(piece)
        self.submitted.set()
        return index + 100

    def cancel(self, ticket: int) -> None:
        self.cancelled.append(ticket)

    def gauges(self) -> Gauges:
        return self._gauges


class Exchange:
    """One HTTP exchange, driven by hand."""

    def __init__(self, app: WorkerApp, path: str, body: bytes, method: str = "POST", headers: Headers = None) -> None:
        self._events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._events.put_nowait({"type": "http.request", "body": body, "more_body": False})
        self.sent: list[dict[str, Any]] = []
        scope = {"type": "http", "method": method, "path": path, "headers": headers or []}
        self.done = asyncio.create_task(app(scope, self._events.get, self._send))  # type: ignore[arg-type]

    def leave(self) -> None:
        self._events.put_nowait({"type": "http.disconnect"})

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def text(self) -> str:
        return b"".join(event.get("body", b"") for event in self.sent).decode()

    async def _send(self, event: dict[str, Any]) -> None:
        self.sent.append(event)


def app_over(engine: ScriptedEngine, max_in_flight: int = 4) -> WorkerApp:
    return WorkerApp(engine, LIMITS, max_in_flight)


def chat_body(**fields: Any) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]} | fields).encode()


async def post(app: WorkerApp, **fields: Any) -> Exchange:
    exchange = Exchange(app, "/v1/chat/completions", chat_body(**fields))
    await exchange.done
    return exchange


def text(index: int, content: str, **more: Any) -> Piece:
    return Piece(index, list(content.encode()), **more)


async def get(app: WorkerApp, path: str) -> Exchange:
    exchange = Exchange(app, path, b"", "GET")
    await exchange.done
    return exchange


async def test_a_failure_before_the_first_token_is_a_500_error_object() -> None:
    engine = ScriptedEngine(Piece(0, (), error="out of cheese"))
    for stream in (False, True):
        exchange = await post(app_over(engine), stream=stream)
        assert exchange.status == 500
        assert json.loads(exchange.text)["error"] == {
            "message": "The engine failed: out of cheese",
            "type": "server_error",
            "param": None,
            "code": "engine_error",
        }


async def test_a_failure_within_a_stream_ends_it_with_an_error_event_and_no_done() -> None:
    class Failing(ScriptedEngine):
        def submit(self, prompt: Sequence[int], sampling: Sampling, index: int, sink: Callable[[Piece], None]) -> int:
            sink(text(0, "good"))
            asyncio.get_running_loop().call_later(0, lambda: sink(Piece(0, (), error="bad")))
            return 1

    exchange = await post(app_over(Failing()), stream=True)
    assert exchange.status == 200
    assert '"content":"good"' in exchange.text
    assert '"message":"The engine failed: bad"' in exchange.text
    assert "[DONE]" not in exchange.text
    assert exchange.sent[-1]["more_body"] is False


async def test_a_full_queue_is_refused_with_a_wait_and_room_returns() -> None:
    engine = ScriptedEngine()
    app = app_over(engine, max_in_flight=2)
    waiting = Exchange(app, "/v1/chat/completions", chat_body(n=2))
    await engine.submitted.wait()
    refused = await post(app)
    assert refused.status == 503
    assert (b"retry-after", b"1") in refused.sent[0]["headers"]
    assert json.loads(refused.text)["error"]["code"] == "engine_overloaded"
    waiting.leave()
    await waiting.done
    engine.submitted.clear()
    admitted = Exchange(app, "/v1/chat/completions", chat_body())
    await engine.submitted.wait()
    admitted.leave()
    await admitted.done


async def test_a_client_that_leaves_has_every_choice_cancelled_and_gets_nothing() -> None:
    engine = ScriptedEngine()
    exchange = Exchange(app_over(engine), "/v1/chat/completions", chat_body(n=3))
    await engine.submitted.wait()
    exchange.leave()
    await exchange.done
    assert engine.cancelled == [100, 101, 102]
    assert exchange.sent == []


async def test_a_finished_completion_is_not_cancelled_and_one_cut_by_a_stop_string_is() -> None:
    finished = ScriptedEngine(text(0, "one END two", finish_reason="stop"))
    await post(app_over(finished))
    assert finished.cancelled == []
    running = ScriptedEngine(text(0, "one END two"))
    exchange = await post(app_over(running), stop="END")
    assert running.cancelled == [100]
    choice = json.loads(exchange.text)["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("one ", "stop")


async def test_tokens_that_arrive_together_become_one_frame_and_one_end_for_each_choice() -> None:
    engine = ScriptedEngine(
        text(0, "a"),
        text(0, "b"),
        text(1, "x"),
        text(0, "c", finish_reason="length"),
        text(1, "", finish_reason="stop"),
    )
    exchange = await post(app_over(engine), stream=True, n=2)
    chunks = [json.loads(line[6:]) for line in exchange.text.split("\n\n") if line.startswith("data: {")]
    ends = [(chunk["choices"][0]["index"], chunk["choices"][0]["finish_reason"]) for chunk in chunks]
    assert ends == [(0, None), (0, "length"), (1, None), (1, "stop")]
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": "abc"}
    assert exchange.text.endswith("data: [DONE]\n\n")


async def test_a_prompt_that_the_template_rejects_is_a_400() -> None:
    exchange = await post(app_over(ScriptedEngine()), messages=[{"role": "user", "content": "unspeakable"}])
    assert exchange.status == 400
    assert "The chat template rejects" in json.loads(exchange.text)["error"]["message"]


async def test_a_body_beyond_the_limit_is_a_413() -> None:
    exchange = Exchange(app_over(ScriptedEngine()), "/v1/chat/completions", b" " * (MAX_BODY_BYTES + 1))
    await exchange.done
    assert exchange.status == 413


async def test_health_tells_of_a_failure_and_of_a_stall() -> None:
    assert (await get(app_over(ScriptedEngine()), "/health")).status == 200
    failed = await get(app_over(ScriptedEngine(gauges=Gauges(failure="broken"))), "/health")
    assert (failed.status, json.loads(failed.text)["error"]["message"]) == (503, "broken")
    stalled = await get(app_over(ScriptedEngine(gauges=Gauges(stalled_s=31))), "/health")
    assert (stalled.status, json.loads(stalled.text)["error"]["message"]) == (503, "no step finished for 31 s")


async def test_metrics_count_tokens_and_outcomes() -> None:
    engine = ScriptedEngine(text(0, "abc", finish_reason="stop"), gauges=Gauges(running=2, cache_usage_ratio=0.25))
    app = app_over(engine)
    await post(app)
    await post(app, temperature=9)
    lines = (await get(app, "/metrics")).text.splitlines()
    assert 'headgate_engine_requests_running{model="m"} 2' in lines
    assert 'headgate_engine_kv_cache_usage_ratio{model="m"} 0.25' in lines
    assert 'headgate_engine_prompt_tokens_total{model="m"} 2' in lines
    assert 'headgate_engine_generation_tokens_total{model="m"} 3' in lines
    assert 'headgate_engine_requests_total{model="m",outcome="completed"} 1' in lines
    assert 'headgate_engine_requests_total{model="m",outcome="refused"} 1' in lines


async def test_the_deadline_that_the_gateway_sends_ends_the_generation() -> None:
    engine = ScriptedEngine()
    headers = [(b"x-headgate-deadline-ms", b"20")]
    for stream in (False, True):
        app = app_over(engine)
        exchange = Exchange(app, "/v1/chat/completions", chat_body(stream=stream), headers=headers)
        await exchange.done
        assert json.loads(exchange.text)["error"]["message"].endswith("the deadline of the request passed")
        assert 'outcome="cancelled"} 1' in (await get(app, "/metrics")).text
    assert engine.cancelled == [100, 100]


async def test_a_deadline_that_is_no_number_is_ignored() -> None:
    engine = ScriptedEngine(text(0, "ok", finish_reason="stop"))
    headers = [(b"x-headgate-deadline-ms", b"soon")]
    exchange = Exchange(app_over(engine), "/v1/chat/completions", chat_body(), headers=headers)
    await exchange.done
    assert exchange.status == 200
