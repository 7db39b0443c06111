"""An upstream that costs a few microseconds a request, so that a gateway before it is what is measured.

    python -m benchmarks.overhead_upstream --port 9001

The model name says how it answers: `plain` at once; `paced` with 64 frames 5 ms apart; `burst` with 64 frames back to
back, each in a write of its own; `large` with a body of 256 KiB.
"""

import argparse
import asyncio
import gc
import socket

import uvloop

FRAMES = 64
GAP_S = 0.005
LARGE_BYTES = 256 * 1024
_SSE_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)
_USAGE = b'"usage":{"prompt_tokens":24,"completion_tokens":64,"total_tokens":88}'


def _whole(model: bytes, text: bytes) -> bytes:
    body = (
        b'{"id":"chatcmpl-1","object":"chat.completion","created":1760000000,"model":"%s","choices":[{"index":0,'
        b'"message":{"role":"assistant","content":"%s","refusal":null},"logprobs":null,"finish_reason":"stop"}],%s}'
    ) % (model, text, _USAGE)
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def _frames(model: bytes) -> list[bytes]:
    def frame(rest: bytes) -> bytes:
        event = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1760000000,"model":"%s",%s}\n\n'
        data = event % (model, rest)
        return b"%x\r\n%s\r\n" % (len(data), data)

    choice = b'"choices":[{"index":0,"delta":%s,"logprobs":null,"finish_reason":%s}]'
    words = [frame(choice % (b'{"content":" word"}', b"null")) for _ in range(FRAMES)]
    last = frame(choice % (b"{}", b'"stop"')) + frame(b'"choices":[],' + _USAGE) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    return [frame(choice % (b'{"role":"assistant","content":""}', b"null")), *words, last]


_TEXT = b"lorem ipsum dolor sit amet " * 6
_ANSWERS = {b"large": _whole(b"large", b"lorem " * (LARGE_BYTES // 6))}
_PLAIN = _whole(b"plain", _TEXT)
_STREAMS = {model: (gap_s, _frames(model)) for model, gap_s in ((b"paced", GAP_S), (b"burst", 0.0))}
_MODELS = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 27\r\n\r\n{"object":"list","data":[]}'


def _model_of(body: bytes) -> bytes:
    """Return the model that a body names, without decoding it."""
    at = body.find(b'"model"')
    if at < 0:
        return b""
    begin = body.find(b'"', at + 7) + 1
    return body[begin : body.find(b'"', begin)]


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self._pending = b""
        self._transport: asyncio.Transport | None = None
        self._streaming: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]  # uvloop's own class

    def connection_lost(self, _: Exception | None) -> None:
        self._transport = None
        if self._streaming is not None:
            self._streaming.cancel()

    def data_received(self, data: bytes) -> None:
        data = self._pending + data if self._pending else data
        while data:
            end = data.find(b"\r\n\r\n")
            if end < 0:
                break
            head = data[:end].lower()
            length, body_at = _content_length(head), end + 4
            if len(data) < body_at + length:
                break
            self._answer(head, data[body_at : body_at + length])
            data = data[body_at + length :]
        self._pending = data

    def _answer(self, head: bytes, body: bytes) -> None:
        if self._transport is None:
            return
        if head.startswith(b"get"):
            self._transport.write(_MODELS)
            return
        model = _model_of(body)
        stream = _STREAMS.get(model)
        if stream is None:
            self._transport.write(_ANSWERS.get(model, _PLAIN))
        else:
            self._streaming = asyncio.get_running_loop().create_task(self._stream(*stream))

    async def _stream(self, gap_s: float, frames: list[bytes]) -> None:
        first, *others = frames
        if self._transport is not None:
            self._transport.write(_SSE_HEAD + first)
        for frame in others:
            await asyncio.sleep(gap_s)
            if self._transport is None:
                return
            self._transport.write(frame)


def _content_length(head: bytes) -> int:
    at = head.find(b"\ncontent-length:")
    if at < 0:
        return 0
    end = head.find(b"\r", at)
    return int(head[at + 16 : end if end > 0 else len(head)])


async def serve(port: int) -> None:
    """Serve on a port of the loopback interface, for ever."""
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(("127.0.0.1", port))
        server = await asyncio.get_running_loop().create_server(_Connection, sock=bound, backlog=1024)
        gc.freeze()
        await server.serve_forever()


def main() -> None:
    """Read the port and serve."""
    parser = argparse.ArgumentParser(prog="overhead_upstream", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
