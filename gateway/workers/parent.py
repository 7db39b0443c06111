"""The parent of several workers: it starts them, starts them again when they end, and leaves none of them behind.

It does nothing else, so nothing makes it end: it holds the sockets, waits for signals and children in one thread, and
hands SIGTERM, SIGINT and SIGHUP on. Workers are forked after everything is imported and before any thread exists. The
first worker is started alone, so that what start-up refuses is said once, and files are made and migrated by one.
When the parent is killed, the kernel tells its workers, which drain and end.
"""

import ctypes
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from backends.engines.expectation import restart_delay_s
from core.errors import ConfigurationError

logger = logging.getLogger("headgate.workers")
READY = signal.SIGRTMIN
HANDLED = frozenset({signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, READY})
EXIT_OK, EXIT_FAILED, EXIT_REFUSED = 0, 1, 2
FIRST_DELAY_S = 1.0
LONGEST_DELAY_S = 30.0
HEALTHY_S = 60.0
STOP_S = 60.0
"""Longer than a worker needs to drain, settle and stop its engines; what is left then is killed."""
LONGEST_WAIT_S = 3_600.0
PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Child:
    """One worker: its process, if it runs, and how it fared."""

    number: int
    pid: int | None = None
    is_ready: bool = False
    began_s: float = 0.0
    due_s: float = 0.0
    starts: int = 0
    failures: int = 0


class Parent:
    """Runs `work(number)` in a process of its own for each worker, until a signal ends all."""

    def __init__(
        self,
        workers: int,
        work: Callable[[int], int],
        on_start: Callable[[int], None] = lambda _: None,
        on_down: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Start nothing yet.

        Args:
            workers: how many.
            work: what a worker does, in its process; its result is the exit code. It calls `tell_ready`.
            on_start: told, here, of a worker that is about to start.
            on_down: told, here, of a worker that will not come back at once.
        """
        self._children = [_Child(number) for number in range(workers)]
        self._work = work
        self._on_start = on_start
        self._on_down = on_down
        self._is_stopping = False
        self._kill_at_s = 0.0
        self._code = EXIT_OK

    def run(self) -> int:
        """Supervise until SIGINT or SIGTERM, or a refused start; returns the exit code."""
        before = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        try:
            while not self._is_over():
                self._start_due()
                told = signal.sigtimedwait(HANDLED, self._patience_s())
                if told is not None:
                    self._act(told.si_signo, told.si_pid)
                if self._is_stopping and time.monotonic() >= self._kill_at_s:
                    self._signal(signal.SIGKILL)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return self._code

    def _is_over(self) -> bool:
        return self._is_stopping and all(child.pid is None for child in self._children)

    def _start_due(self) -> None:
        now_s = time.monotonic()
        for child in self._children:
            if not self._is_stopping and child.pid is None and now_s >= child.due_s and self._may_start(child):
                self._start(child)

    def _may_start(self, child: _Child) -> bool:
        """Tell whether the first worker has been ready, which the others wait for."""
        first = self._children[0]
        return child is first or first.is_ready or child.starts > 0

    def _patience_s(self) -> float:
        now_s = time.monotonic()
        if self._is_stopping:
            return max(0.0, self._kill_at_s - now_s)
        due_s = (child.due_s for child in self._children if child.pid is None and self._may_start(child))
        return max(0.0, min(due_s, default=now_s + LONGEST_WAIT_S) - now_s)

    def _start(self, child: _Child) -> None:
        parent = os.getpid()
        child.is_ready, child.began_s = False, time.monotonic()
        try:
            self._on_start(child.number)
        except ConfigurationError as problem:
            self._plan(child, problem=problem.message)
            return
        child.starts += 1
        pid = os.fork()
        if pid == 0:
            self._be(child.number, parent)
        child.pid = pid

    def _be(self, number: int, parent: int) -> None:
        """Be a worker; never returns, so that nothing of the parent is unwound in it."""
        code = EXIT_FAILED
        try:
            os.setpgid(0, 0)  # Ctrl-C of a terminal is the parent's to hand on
            _end_with(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, HANDLED)
            code = self._work(number)
        except ConfigurationError as error:
            code = EXIT_REFUSED
            print(f"headgate: {error}", file=sys.stderr)  # noqa: T201 - start-up talks to a person
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            logging.shutdown()
            os._exit(code)

    def _act(self, number: int, sender: int) -> None:
        match number:
            case signal.SIGCHLD:
                self._reap()
            case signal.SIGHUP:
                for child in self._children:
                    if child.is_ready and child.pid is not None:
                        os.kill(child.pid, signal.SIGHUP)
            case signal.SIGINT | signal.SIGTERM:
                self._stop()
            case _:
                for child in self._children:
                    child.is_ready = child.is_ready or child.pid == sender

    def _stop(self, code: int = EXIT_OK) -> None:
        """Let every worker drain; asked again, they hurry."""
        if not self._is_stopping:
            self._is_stopping, self._code = True, code
            self._kill_at_s = time.monotonic() + STOP_S
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None:
                os.kill(child.pid, number)

    def _reap(self) -> None:
        for child in self._children:
            if child.pid is None:
                continue
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if pid:
                child.pid = None
                self._ended(child, os.waitstatus_to_exitcode(status))

    def _ended(self, child: _Child, code: int) -> None:
        if self._is_stopping:
            return
        if code == EXIT_REFUSED and child.starts == 1:
            self._stop(EXIT_REFUSED)
            return
        self._plan(child, exit_code=code)

    def _plan(self, child: _Child, **why: object) -> None:
        """Note when a worker that ended is started again."""
        now_s = time.monotonic()
        child.failures = 1 if now_s - child.began_s >= HEALTHY_S else child.failures + 1
        delay_s = restart_delay_s(child.failures, FIRST_DELAY_S, LONGEST_DELAY_S)
        child.due_s = now_s + delay_s
        if delay_s > 0:
            self._on_down(child.number)
        what = {"worker": child.number, "again_in_s": delay_s, **why}
        logger.warning("a worker ended; it is started again", extra=what)


def tell_ready() -> None:
    """Tell the parent, from a worker, that it listens."""
    os.kill(os.getppid(), READY)


def _end_with(parent: int) -> None:
    """Have the kernel send SIGTERM when the parent is gone, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(EXIT_FAILED)
