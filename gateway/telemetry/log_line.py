"""One JSON line per request on standard error, and the JSON formatter of every other log record.

Lines are formatted and written by a thread: whoever reads standard error slowly, or not at all, holds up no request.
What does not fit the queue is dropped and counted.
"""

import logging
import os
import threading
import time
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from core.hand_over import HandOver
from core.money import usd_text
from core.trace import RequestTrace

logger = logging.getLogger("headgate.request")
MAX_QUEUED = 20_000
MAX_GROUP = 500
GATHER_S = 0.1
CLOSE_S = 2.0
STDERR = 2
_encoder = msgspec.json.Encoder(enc_hook=str)
_BLANK = logging.LogRecord(logger.name, logging.INFO, "", 0, "request", None, None).__dict__
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Renders a record as one JSON object; a JSON encoder cannot be tricked into a second line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its `extra` fields."""
        if isinstance(record, _RequestRecord):
            return _encoder.encode(request_line(record.trace, record.created)).decode()
        line: dict[str, Any] = {
            "at": moment(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return _encoder.encode(line).decode()


class _RequestRecord(logging.LogRecord):
    """A request's record: its trace is turned into a line where that is written, and nobody searches for a caller."""

    def __init__(self, trace: RequestTrace) -> None:
        self.__dict__.update(_BLANK)  # a fifth of what the base class takes to find out the same each time
        self.created = time.time()
        self.trace = trace


class BackgroundHandler(logging.Handler):
    """Writes records to a file descriptor in a thread of its own; `close` waits a little for what is queued.

    Without a buffer between them: its lock, held by a write that nobody reads, would break the end of the process.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self.dropped = 0
        self._queue: HandOver[logging.LogRecord] = HandOver(GATHER_S, MAX_GROUP, limit=MAX_QUEUED)
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        self._thread.start()

    def createLock(self) -> None:  # noqa: N802 - the name is logging's
        """Have no lock, since a queue needs none."""
        self.lock = None

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a record, or count it as dropped."""
        if not self._queue.put(record):
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued, for a bounded time."""
        super().close()
        self._queue.close()
        self._thread.join(timeout=CLOSE_S)

    def _run(self) -> None:
        going_on = True
        while going_on:
            group, going_on = self._queue.take()
            lines = "".join(self.format(record) + "\n" for record in group)
            try:
                self._write(lines.encode("utf-8", "backslashreplace"))
            except OSError:  # a full disk or a closed pipe: there is nowhere left to say it
                self.dropped += len(group)

    def _write(self, content: bytes) -> None:
        while content:
            content = content[os.write(self._descriptor, content) :]


class LogLine:
    """A sink that logs each trace at INFO."""

    def record(self, trace: RequestTrace) -> None:
        """Log one line, unless the level is above INFO."""
        if not logger.isEnabledFor(logging.INFO):
            return
        logger.handle(_RequestRecord(trace))


class RequestLine(msgspec.Struct, frozen=True, gc=False):
    """What an operator greps for; never a prompt, a completion or a key."""

    at: str
    level: str
    logger: str
    message: str
    request_id: str
    tenant: str
    path: str
    status: int
    error: str | None
    cache: str
    tier: str | None
    deployment: str | None
    reason: str | None
    attempts: int
    cost_usd: str
    saved_usd: str
    ttft_ms: float | None
    total_ms: float


def request_line(trace: RequestTrace, created_s: float) -> RequestLine:
    """Return a request's line; `created_s` is in Unix seconds."""
    return RequestLine(
        at=moment(created_s),
        level="info",
        logger=logger.name,
        message="request",
        request_id=trace.request_id,
        tenant=trace.tenant,
        path=trace.path,
        status=trace.status,
        error=trace.error_code,
        cache=trace.cache,
        tier=trace.tier,
        deployment=trace.deployment,
        reason=trace.reason,
        attempts=len(trace.attempts),
        cost_usd=usd_text(trace.cost_nano_usd),
        saved_usd=usd_text(trace.saved_nano_usd),
        ttft_ms=None if trace.ttft_ms is None else round(trace.ttft_ms, 1),
        total_ms=round(trace.total_ms, 1),
    )


def moment(unix_s: float) -> str:
    """Write a moment in UTC to the millisecond, as ISO 8601."""
    second, ms = divmod(round(unix_s * 1e6) // 1000, 1000)
    return f"{_second(second)}.{ms:03d}+00:00"


@lru_cache(maxsize=8)
def _second(unix_s: int) -> str:
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def dropped_lines() -> int:
    """Return how many lines could not be written so far."""
    handlers = logging.getLogger().handlers
    return sum(handler.dropped for handler in handlers if isinstance(handler, BackgroundHandler))


def configure_logging(level: str, descriptor: int = STDERR) -> None:
    """Send JSON lines to a file descriptor; called once by the command line, never on import."""
    _send_to(BackgroundHandler(descriptor), level)


def configure_parent_logging(level: str) -> None:
    """Send JSON lines to standard error without a thread, for a process that forks."""
    _send_to(logging.StreamHandler(), level)


def _send_to(handler: logging.Handler, level: str) -> None:
    handler.setFormatter(JsonFormatter())
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False  # no line tells them
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "aiohttp", "uvicorn", "sentence_transformers", "transformers", "faiss"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what is not exported is counted, and said once
