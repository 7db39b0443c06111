"""A real redis-server for tests: on a unix socket in a folder of its own, ended by its process id."""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import redis

BINARY = shutil.which("redis-server") or shutil.which("valkey-server")
WHY_NOT = "no redis-server on this machine (Debian: apt-get install redis-server)"


class RedisServer:
    """Starts, kills and starts again on the same data."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="headgate-redis-"))
        self.socket = self.folder / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it answers."""
        assert BINARY is not None, WHY_NOT
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [BINARY, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(self.folder),
                 "--appendonly", "yes", "--save", "", "--maxmemory-policy", "volatile-lfu"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        pause = threading.Event()
        for _ in range(2000):
            if self._answers():
                return
            pause.wait(0.01)
        raise TimeoutError((self.folder / "log").read_text())

    def kill(self) -> None:
        """End the server at once, as `kill -9` does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End the server and remove its folder."""
        self._end(signal.SIGTERM)
        shutil.rmtree(self.folder)

    def pause(self) -> None:
        """Stop the server from answering without closing its connections."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(20)
            self._process = None

    def _answers(self) -> bool:
        try:
            with redis.Redis(unix_socket_path=str(self.socket)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


@contextmanager
def running_redis() -> Iterator[RedisServer]:
    """Run a server of one's own for as long as the block lasts."""
    server = RedisServer()
    try:
        server.start()
        yield server
    finally:
        server.close()
