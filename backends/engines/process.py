"""One engine as a process group of its own: started, listened to, and ended as a group."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Mapping
from pathlib import Path

from backends.engines.log_ring import LogRing

READ_BYTES = 65_536
POLL_S = 0.02
CHILDREN_GRACE_S = 2.0
"""Killed children stay visible until their new parent has waited for them; some containers have none that does."""


class EngineProcess:
    """A running engine; `exited` completes with its exit status (negative: the signal that killed it)."""

    def __init__(self, process: asyncio.subprocess.Process, output: int, log: LogRing) -> None:
        self._process = process
        self._output = output
        self._log = log
        self.exited: asyncio.Task[int] = asyncio.create_task(process.wait())
        asyncio.get_running_loop().add_reader(output, self._read)

    @property
    def group(self) -> int:
        """Return the id of the process group, which is the engine's own pid."""
        return self._process.pid

    def terminate(self, *, alone: bool) -> None:
        """Ask the engine to end: `alone` when it drains and ends its children itself, else the whole group.

        vLLM's children end at once on SIGTERM, and the streams that its server still drains with them.
        """
        if not alone:
            _signal_group(self.group, signal.SIGTERM)
        elif not self.exited.done():
            os.kill(self.group, signal.SIGTERM)

    async def end(self) -> None:
        """Kill whatever is left of the group and wait until the engine is gone, and for a moment for its children."""
        self.kill()
        await asyncio.shield(self.exited)
        for _ in range(round(CHILDREN_GRACE_S / POLL_S)):
            if not _signal_group(self.group, signal.SIGKILL):
                break
            await asyncio.sleep(POLL_S)
        self._read()
        self._stop_reading()

    def kill(self) -> None:
        """Kill the whole group at once."""
        _signal_group(self.group, signal.SIGKILL)

    def _read(self) -> None:
        if self._output < 0:
            return
        with contextlib.suppress(BlockingIOError):
            chunk = os.read(self._output, READ_BYTES)
            self._log.feed(chunk)
            if not chunk:
                self._stop_reading()

    def _stop_reading(self) -> None:
        if self._output >= 0:
            asyncio.get_running_loop().remove_reader(self._output)
            os.close(self._output)
            self._output = -1


async def start_process(
    command: tuple[str, ...], environment: Mapping[str, str], cwd: Path, log: LogRing
) -> EngineProcess:
    """Start `command` in a session of its own; its output goes to `log`, its input is empty.

    Raises:
        OSError: there is no such program, or it may not be run.
    """
    readable, writable = os.pipe()
    os.set_blocking(readable, False)
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writable,
            stderr=writable,
            env=dict(environment),
            cwd=cwd,
            start_new_session=True,
        )
    except BaseException:
        os.close(readable)
        raise
    finally:
        os.close(writable)
    return EngineProcess(process, readable, log)


def free_port() -> int:
    """Return a loopback port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    """Return whether nobody listens on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _signal_group(group: int, number: signal.Signals) -> bool:
    """Return whether the group still had a process, be it one that nobody has waited for yet."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
