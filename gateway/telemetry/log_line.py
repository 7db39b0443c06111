"""One JSON line per request on standard error, and the JSON formatter of every other log record."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any

import msgspec

from core.money import usd_text
from core.trace import RequestTrace

logger = logging.getLogger("headgate.request")
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Renders a record as one JSON object; a JSON encoder cannot be tricked into a second line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record with its `extra` fields."""
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line, enc_hook=str).decode()


class LogLine:
    """A sink that logs each trace at INFO."""

    def record(self, trace: RequestTrace) -> None:
        """Log what an operator greps for; never a prompt, a completion or a key."""
        logger.info(
            "request",
            extra={
                "request_id": trace.request_id,
                "tenant": trace.tenant,
                "path": trace.path,
                "status": trace.status,
                "error": trace.error_code,
                "cache": trace.cache,
                "tier": trace.tier,
                "deployment": trace.deployment,
                "reason": trace.reason,
                "attempts": len(trace.attempts),
                "cost_usd": usd_text(trace.cost_nano_usd),
                "saved_usd": usd_text(trace.saved_nano_usd),
                "ttft_ms": None if trace.ttft_ms is None else round(trace.ttft_ms, 1),
                "total_ms": round(trace.total_ms, 1),
            },
        )


def configure_logging(level: str) -> None:
    """Send JSON lines to standard error; called once by the command line, never on import."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "aiohttp", "uvicorn", "sentence_transformers", "transformers", "faiss"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # what is not exported is counted, and said once
