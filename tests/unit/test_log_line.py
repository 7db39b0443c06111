"""A record is one line of JSON, whatever is in it."""

import json
import logging
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry.log_line import JsonFormatter, LogLine
from tests.traces import a_refusal, a_trace


def record(message: str = "hello", extra: dict[str, Any] | None = None, **changes: Any) -> logging.LogRecord:
    made = logging.getLogger("headgate.test").makeRecord(
        "headgate.test", logging.WARNING, "file.py", 1, message, (), changes.get("exc_info"), extra=extra
    )
    made.created = 1_767_323_045.678
    return made


def line(made: logging.LogRecord) -> dict[str, Any]:
    text = JsonFormatter().format(made)
    assert "\n" not in text
    decoded: dict[str, Any] = json.loads(text)
    return decoded


def test_a_record_is_a_json_object_with_its_extra_fields() -> None:
    assert line(record(extra={"tenant": "acme", "n": 2})) == {
        "at": "2026-01-02T03:04:05.678+00:00",
        "level": "warning",
        "logger": "headgate.test",
        "message": "hello",
        "tenant": "acme",
        "n": 2,
    }


def test_a_line_break_in_a_message_stays_within_the_line() -> None:
    assert line(record('a\n{"level": "info"}\u2028\r'))["message"] == 'a\n{"level": "info"}\u2028\r'


def test_a_value_without_a_json_form_is_written_as_text() -> None:
    said = line(record(extra={"file": Path("a/b"), "since": date(2026, 1, 1), "odd": {1}}))
    assert said["file"] == "a/b"
    assert said["odd"] in ("{1}", [1])


def test_an_exception_is_kept_with_its_traceback() -> None:
    try:
        raise ValueError("broken")
    except ValueError:
        said = line(record(exc_info=sys.exc_info()))
    assert "Traceback" in said["exception"]
    assert "ValueError: broken" in said["exception"]


def test_a_trace_is_one_line_at_info(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headgate.request"):
        LogLine().record(a_trace())
    (made,) = caplog.records
    said = line(made)
    assert (said["level"], said["request_id"], said["tenant"], said["status"]) == ("info", "req_1", "acme", 200)
    assert (said["tier"], said["deployment"], said["reason"], said["cache"]) == ("small", "s1", "score", "miss")
    assert (said["cost_usd"], said["saved_usd"], said["attempts"]) == ("1.5", "0", 1)
    assert (said["ttft_ms"], said["total_ms"]) == (61.5, 112.2)


def test_a_refusal_has_an_error_code_and_no_first_token(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "headgate.request"):
        LogLine().record(a_refusal())
    said = line(caplog.records[0])
    assert (said["error"], said["ttft_ms"], said["tier"]) == ("insufficient_quota", None, None)
