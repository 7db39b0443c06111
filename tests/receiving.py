"""A small HTTP server that collects what is posted to it, as a collector or a webhook's owner would."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer


@dataclass(frozen=True, slots=True)
class Post:
    """One call as it arrived."""

    authorization: str | None
    body: bytes


@contextmanager
def receiver() -> Iterator[tuple[str, list[Post]]]:
    """Listen on a free loopback port; yield the URL and the calls so far."""
    posts: list[Post] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posts.append(Post(self.headers["authorization"], self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:
            """Stay silent."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", posts
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
