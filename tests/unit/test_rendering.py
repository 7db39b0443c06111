"""Errors as clients read them."""

import json

from core.errors import DeadlineExceeded, InvalidRequest, ModelNotFound, Unavailable
from gateway.wire.rendering import error_body, error_event, error_headers


def test_a_body_is_the_openai_error_object() -> None:
    assert json.loads(error_body(InvalidRequest("'n' is too large.", param="n"))) == {
        "error": {
            "message": "'n' is too large.",
            "type": "invalid_request_error",
            "param": "n",
            "code": "invalid_request_error",
        }
    }


def test_a_parameter_that_no_one_named_is_null() -> None:
    assert json.loads(error_body(DeadlineExceeded("late")))["error"]["param"] is None


def test_an_event_is_one_data_frame_with_the_same_object() -> None:
    error = ModelNotFound("a\n\nb")
    event = error_event(error)
    assert event.startswith(b"data: ")
    assert event.endswith(b"\n\n")
    assert event.count(b"\n") == 2
    assert json.loads(event.removeprefix(b"data: ")) == json.loads(error_body(error))


def test_headers_tell_whether_and_when_to_come_back() -> None:
    assert error_headers(Unavailable("full", 2.0)) == [("retry-after", "2"), ("retry-after-ms", "2000")]
    assert error_headers(DeadlineExceeded("late")) == [("x-should-retry", "false")]
    assert error_headers(InvalidRequest("no")) == []
