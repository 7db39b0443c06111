"""An OpenAI-compatible upstream that gives every call a text of its own, so that a hit tells which call made it."""

import itertools
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import uvicorn

_count = itertools.count()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer `text <n>`, n counting calls; any path, never streaming."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    choice = {"index": 0, "message": {"role": "assistant", "content": f"text {next(_count)}"}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12}
    body = msgspec.json.encode(
        {"id": "c", "object": "chat.completion", "created": 0, "model": "counting", "choices": [choice], "usage": usage}
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def running_upstream() -> Iterator[str]:
    """Serve in a thread on a free port of the loopback interface; yield the base URL up to and with /v1."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        server.should_exit = True
        thread.join(10)
