"""Routes requests: the OpenAI paths obey their script, the control paths show and change what the upstream does.

Scripts, weakest first: the server's (`--script`, `POST /script`), the model name's, the header `x-script`.
"""

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, unquote
from weakref import WeakSet

from gateway.faults.upstream.bodies import chat_body, embeddings_body, error_body, model_body, models_body, text_body
from gateway.faults.upstream.connection import Connection
from gateway.faults.upstream.player import Player
from gateway.faults.upstream.reply import Json, count_prompt_tokens, make_reply
from gateway.faults.upstream.request import Request
from gateway.faults.upstream.script import Script, ScriptError, parse_script, script_in_model
from gateway.faults.upstream.seen import Record, Sighting
from gateway.faults.upstream.steps import Step, StreamedAnswer, plain_steps

CONTROL_PATHS = ("/seen", "/reset", "/script", "/load", "/metrics", "/healthz")
SETTLE_LIMIT_S = 60.0
TALLY_LIMIT = 10_000


class Refusal(Exception):
    """The request itself is wrong; `status` and the message go into the error object."""

    def __init__(self, status: int, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Upstream:
    """The state of one server: its own script, what it saw, and how often each script was met."""

    def __init__(self, script: str = "") -> None:
        parse_script(script)
        self.script = script
        self.record = Record()
        self.load = (0, 0)
        self._tally: Counter[str] = Counter()
        self._requests = itertools.count(1)
        self._connections = itertools.count(1)
        self._open: WeakSet[Connection] = WeakSet()

    def connect(self) -> Connection:
        """Make the protocol of a new connection."""
        connection = Connection(next(self._connections), self.answer, self._refused)
        self._open.add(connection)
        return connection

    def obey(self, script: str) -> None:
        """Make every later request obey `script`; raises ScriptError."""
        parse_script(script)
        self.script = script

    def abort(self) -> None:
        """Drop every connection, whatever it is doing."""
        for connection in self._open:
            connection.abort()

    async def answer(self, request: Request, connection: Connection) -> None:
        """Answer one request on its connection."""
        if request.path in CONTROL_PATHS:
            await self._control(request, connection)
            return
        sighting = self._sight(request, connection.number)
        if connection.close_on_next_request:
            sighting.end("dropped")
            connection.close()
            return
        try:
            script, steps = self._scripted(request, sighting)
            await Player(script, connection, sighting).play(steps)
        except Refusal as refusal:
            sighting.end("refused")
            await _send_json(connection, refusal.status, error_body(refusal.status, str(refusal), refusal.code))
        finally:
            sighting.end("disconnected")

    def _sight(self, request: Request, connection_number: int) -> Sighting:
        sighting = Sighting(
            number=next(self._requests),
            connection=connection_number,
            method=request.method,
            path=request.target,
            headers=request.headers,
            body=request.body,
        )
        self.record.add(sighting)
        return sighting

    def _refused(self, connection: Connection, reason: str) -> None:
        method = "TLS" if reason == "TLS" else "?"
        sighting = self._sight(Request(method, "", "", {}, b""), connection.number)
        sighting.script = reason
        sighting.end("refused")

    def _scripted(self, request: Request, sighting: Sighting) -> tuple[Script, Iterator[Step]]:
        is_json = "json" in request.headers.get("content-type", "json")
        body = _read_json(request) if request.method == "POST" and is_json else {}
        in_model = script_in_model(str(body.get("model", "")))
        sighting.script = ";".join(filter(None, (self.script, in_model, request.headers.get("x-script", ""))))
        try:
            script = parse_script(sighting.script)
        except ScriptError as problem:
            raise Refusal(400, str(problem), "bad_script") from problem
        return self._route(request, body, self._healed(script, sighting.script), sighting.number)

    def _healed(self, script: Script, text: str) -> Script:
        if script.times is None:
            return script
        if len(self._tally) >= TALLY_LIMIT:
            self._tally.clear()
        self._tally[text] += 1
        return script if self._tally[text] <= script.times else script.healed()

    def _route(self, request: Request, body: Json, script: Script, number: int) -> tuple[Script, Iterator[Step]]:
        path = request.path
        if script.status >= 400:
            failure = error_body(script.status, f"scripted status {script.status}", script.code)
            return script, plain_steps(script, script.status, failure, script.ttft_ms)
        match request.method, path:
            case "POST", "/v1/chat/completions" | "/v1/completions":
                return script, _completion_steps(script, body, path == "/v1/chat/completions", number)
            case "POST", "/v1/embeddings":
                if "input" not in body:
                    raise Refusal(400, "input is missing")
                answer = embeddings_body(script, body, count_prompt_tokens(body))
            case "POST", "/v1/rerank" | "/v1/audio/transcriptions":
                answer = {"path": path, "model": body.get("model"), "bytes": len(request.body)}
            case "GET", "/v1/models":
                answer = models_body()
            case "GET", _ if path.startswith("/v1/models/"):
                answer = model_body(unquote(path.removeprefix("/v1/models/")))
            case _:
                raise Refusal(404, f"unknown route {request.method} {path}", "not_found")
        return script, plain_steps(script, script.status, answer, script.ttft_ms)

    async def _control(self, request: Request, connection: Connection) -> None:
        match request.method, request.path:
            case "GET", "/seen":
                await self.record.settled(_settle_s(request))
                await _send_json(connection, 200, self.record.describe())
            case "POST", "/reset":
                self.record.clear()
                self._tally.clear()
                self.script, self.load = "", (0, 0)
                await _send_json(connection, 200, {"reset": True})
            case "POST", "/script":
                await self._change_script(request.body.decode("utf-8", "replace").strip(), connection)
            case "POST", "/load":
                await self._change_load(request.body.decode("utf-8", "replace"), connection)
            case "GET", "/metrics":
                await _send(connection, 200, "text/plain", self._metrics().encode())
            case "GET", "/healthz":
                await _send_json(connection, 200, {"status": "ok"})
            case _:
                await _send_json(connection, 405, error_body(405, f"{request.method} is not taken here"))

    async def _change_script(self, text: str, connection: Connection) -> None:
        try:
            self.obey(text)
        except ScriptError as problem:
            await _send_json(connection, 400, error_body(400, str(problem), "bad_script"))
            return
        await _send_json(connection, 200, {"script": text})

    async def _change_load(self, text: str, connection: Connection) -> None:
        counts = text.split()
        if len(counts) != 2 or not all(count.isdecimal() for count in counts):
            await _send_json(connection, 400, error_body(400, "write two counts: RUNNING WAITING"))
            return
        self.load = (int(counts[0]), int(counts[1]))
        await _send_json(connection, 200, {"load": self.load})

    def _metrics(self) -> str:
        """Return the load in vLLM's words: what is open here, and what others are said to have sent."""
        running, waiting = self.load
        return (
            f'vllm:num_requests_running{{model_name="scripted"}} {running + self.record.open}\n'
            f'vllm:num_requests_waiting{{model_name="scripted"}} {waiting}\n'
        )


async def start_upstream(host: str = "127.0.0.1", port: int = 0, script: str = "") -> asyncio.Server:
    """Listen in this process; the address is in `server.sockets[0].getsockname()`.

    Raises:
        ScriptError: when `script` does not parse.
    """
    return await serve(Upstream(script), host, port)


async def serve(upstream: Upstream, host: str, port: int) -> asyncio.Server:
    """Listen in this process for `upstream`."""
    return await asyncio.get_running_loop().create_server(upstream.connect, host, port, backlog=1024)


def _completion_steps(script: Script, body: Json, is_chat: bool, number: int) -> Iterator[Step]:
    options = body.get("stream_options")
    is_stream = body.get("stream") is True
    if not body.get("messages" if is_chat else "prompt"):
        raise Refusal(400, "messages is missing" if is_chat else "prompt is missing")
    if options is not None and script.usage == "refuse":
        raise Refusal(400, "stream_options is not supported")
    if options is not None and not is_stream:
        raise Refusal(400, "stream_options is only allowed when stream is true")
    reply = make_reply(script, body, number)
    if (is_stream and script.body == "right") or script.body == "sse":
        is_usage_asked = isinstance(options, dict) and options.get("include_usage") is True
        return StreamedAnswer(script, reply, is_chat, is_usage_asked).steps()
    answer = chat_body(script, reply) if is_chat else text_body(script, reply)
    if script.error is not None:
        answer = error_body(500, "the upstream failed", script.code)
    pause_ms = script.ttft_ms + script.gap_ms * max(0, len(reply.pieces) - 1)
    return plain_steps(script, script.status, answer, pause_ms, is_stream)


def _read_json(request: Request) -> Json:
    try:
        body: Any = json.loads(request.body)
    except ValueError as problem:
        raise Refusal(400, "the body is not JSON") from problem
    if not isinstance(body, dict):
        raise Refusal(400, "the body is not a JSON object")
    return body


def _settle_s(request: Request) -> float:
    asked = parse_qs(request.target.partition("?")[2]).get("settle_s", ["0"])[0]
    return min(float(asked), SETTLE_LIMIT_S) if asked.replace(".", "", 1).isdigit() else 0.0


async def _send_json(connection: Connection, status: int, content: Any) -> None:
    await _send(connection, status, "application/json", json.dumps(content).encode())


async def _send(connection: Connection, status: int, content_type: str, payload: bytes) -> None:
    head = f"HTTP/1.1 {status} -\r\ncontent-type: {content_type}\r\ncontent-length: {len(payload)}\r\n\r\n"
    await connection.send(head.encode() + payload)
