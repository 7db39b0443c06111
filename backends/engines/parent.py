"""Ends a worker when the process that started it is gone, so that a killed gateway leaves no engine behind."""

import ctypes
import os
import signal
import sys
import threading
import time

PR_SET_PDEATHSIG = 1
POLL_S = 1.0


def die_with_parent(parent_pid: int) -> None:
    """Exit as soon as `parent_pid` is no longer the parent.

    On Linux the kernel sends SIGKILL, also while native code holds the interpreter; it does so when the *thread* that
    started this process ends, so engines must be started from a thread that lives as long as the gateway. Everywhere
    a thread looks once a second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)
    threading.Thread(target=_watch, args=(parent_pid,), name="parent", daemon=True).start()


def _watch(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(POLL_S)
    os._exit(1)
