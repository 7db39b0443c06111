"""A stand-in for an engine process: speaks just enough of the OpenAI API, and misbehaves on demand."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HEALTHY = "healthy"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    model = ""
    mode = HEALTHY
    unhealthy_file: Path | None = None
    asleep = False
    frames = 5
    gap_s = 0.0

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            names = ["another-model"] if self.mode == "wrong-model" else [self.model]
            body = b"<html>hello</html>" if self.mode == "garbage" else json.dumps({"data": [{"id": n} for n in names]})
            self._reply(200, body)
        else:
            self._reply(503 if self.unhealthy_file is not None and self.unhealthy_file.exists() else 200, "{}")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.startswith(("/sleep", "/wake_up")):
            Handler.asleep = self.path.startswith("/sleep")
            self._reply(500 if self.mode == "insomniac" else 200, "{}")
            return
        if self.asleep:
            self._reply(500, "{}")
            return
        if self.mode == "hang-in-warm-up":
            signal.pause()
        if self.mode == "garbage-in-warm-up":
            self._reply(200, '{"object": "something else"}')
        elif self.mode == "error-in-warm-up":
            self._reply(500, "{}")
        elif b'"stream":true' in body.replace(b" ", b""):
            self._stream()
        else:
            self._reply(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": "x"}}]}))

    def _stream(self) -> None:
        """Count: `model:0 model:1 ...`, one frame each, so that a lost or doubled token shows."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for n in range(self.frames):
            self._event({"choices": [{"index": 0, "delta": {"content": f"{self.model}:{n} "}}]})
            time.sleep(self.gap_s)
        self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self._event({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": self.frames}})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _event(self, fields: dict[str, object]) -> None:
        whole = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": self.model} | fields
        self.wfile.write(b"data: " + json.dumps(whole).encode() + b"\n\n")

    def _reply(self, status: int, body: str | bytes) -> None:
        payload = body.encode() if isinstance(body, str) else body
        self.send_response(status)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--mode", default=HEALTHY)
    parser.add_argument("--unhealthy-file", type=Path)
    parser.add_argument("--load-s", type=float, default=0.0, help="seconds before it listens")
    parser.add_argument("--load-until", type=Path, help="it does not listen before this file exists")
    parser.add_argument("--frames", type=int, default=5, help="frames of each stream")
    parser.add_argument("--gap-s", type=float, default=0.0, help="seconds between them")
    options = parser.parse_args()
    print("fake engine speaking", flush=True)
    if options.mode == "exit":
        print("error: the weights are made of cheese", file=sys.stderr, flush=True)
        raise SystemExit(3)
    if options.mode == "noise":
        os.write(1, b"\xff\xfe\x1b[31mred\x1b[0m" + bytes(range(32)) * 200 + b"z" * 100_000)
    if options.mode == "hang":
        signal.pause()
    if options.mode == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if options.mode == "family":
        child = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
        subprocess.Popen([sys.executable, "-c", child])
    time.sleep(options.load_s)
    while options.load_until is not None and not options.load_until.exists():
        time.sleep(0.02)
    Handler.frames, Handler.gap_s = options.frames, options.gap_s
    Handler.model, Handler.mode, Handler.unhealthy_file = options.model, options.mode, options.unhealthy_file
    ThreadingHTTPServer(("127.0.0.1", options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
