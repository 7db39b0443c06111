"""An OpenAI-compatible upstream with two models whose answers take tokens and time, drawn anew in every run.

`fast` writes 30 to 120 tokens, `deep` 80 to 320, more where the prompt is longer; both take a while to begin, so
long for each token, and now and then much longer. Run as `python -m benchmarks.paced_upstream PORT SEED`.
"""

import asyncio
import random
import sys
from typing import Any

import msgspec
import uvicorn

MODELS = {"fast": (30, 120, 0.04, 0.0010, 0.05, 1.2), "deep": (80, 320, 0.10, 0.0015, 0.10, 2.5)}
"""Least and most tokens, seconds to the first, seconds for each, and how often how many seconds come on top."""


def app_of(seed: int) -> Any:
    """Return the ASGI application."""
    draw = random.Random(seed)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["method"] == "GET":
            await _reply(send, {"object": "list", "data": [{"id": name, "object": "model"} for name in MODELS]})
            return
        asked = msgspec.json.decode(body)
        least, most, first_s, each_s, stalls, stall_s = MODELS[asked["model"]]
        words = len(asked["messages"][-1]["content"].split())
        tokens = min(most, int(least + (most - least) * draw.betavariate(2, 4) + words))
        stalled_s = stall_s if draw.random() < stalls else 0.0
        writing_s = each_s * tokens * draw.lognormvariate(0, 0.15)
        await asyncio.sleep(first_s * draw.lognormvariate(0, 0.3) + writing_s + stalled_s)
        choice = {"index": 0, "message": {"role": "assistant", "content": "word " * tokens}, "finish_reason": "stop"}
        usage = {"prompt_tokens": words + 8, "completion_tokens": tokens, "total_tokens": words + 8 + tokens}
        await _reply(
            send,
            {"id": "c", "object": "chat.completion", "created": 0, "model": asked["model"], "choices": [choice],
             "usage": usage},
        )  # fmt: skip

    return app


async def _reply(send: Any, content: dict[str, Any]) -> None:
    body = msgspec.json.encode(content)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    uvicorn.run(app_of(int(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", lifespan="off")
