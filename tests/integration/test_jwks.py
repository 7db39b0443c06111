"""The keys of an identity provider over HTTP: read in the background, bounded, from where they were promised."""

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from joserfc.jwk import ECKey

from core.clock import SystemClock
from policies.jwks import MAX_BYTES, ring_of_url

KEY = ECKey.generate_key("P-256", {"kid": "k1"})
SET = json.dumps({"keys": [KEY.as_dict(private=False)]}).encode()


class Provider(BaseHTTPRequestHandler):
    """Serves a key set, a redirect to it, too much, and an error."""

    def do_GET(self) -> None:
        if self.path == "/redirect":
            self.send_response(302)
            self.send_header("location", "/keys")
            self.end_headers()
            return
        self.send_response(500 if self.path == "/error" else 200)
        self.end_headers()
        self.wfile.write(SET + b" " * (MAX_BYTES if self.path == "/large" else 0))

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


async def test_the_keys_are_read_in_the_background(url: str) -> None:
    ring = ring_of_url(f"{url}/keys", SystemClock())
    assert ring.find("k1") is None
    task = asyncio.create_task(ring.run())
    async with asyncio.timeout(10):
        while not len(ring):  # noqa: ASYNC110 - the ring has no event of its own
            await asyncio.sleep(0.01)
    task.cancel()
    assert ring.find("k1") is not None
    assert ring.find("k2") is None


@pytest.mark.parametrize("path", ["/redirect", "/large", "/error"])
def test_what_is_not_a_plain_key_set_is_not_taken(url: str, path: str) -> None:
    ring = ring_of_url(url + path, SystemClock())
    with pytest.raises(ValueError):  # noqa: PT011 - each has a message of its own
        ring.load()
    assert len(ring) == 0
