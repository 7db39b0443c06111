"""Each error knows its status, its OpenAI code, and the headers that stop or steer a retry."""

from datetime import UTC, datetime

import pytest

import core.errors
from core.errors import (
    BodyTooLarge,
    BudgetExhausted,
    ClientGone,
    ConfigurationError,
    DeadlineExceeded,
    HeadgateError,
    InvalidApiKey,
    InvalidRequest,
    ModelNotFound,
    NotCached,
    PermissionRefused,
    RateLimited,
    RequestTimeout,
    RouteNotFound,
    Unavailable,
    UnknownName,
    UpstreamFailed,
    retry_after_headers,
)

EVERY = [
    (HeadgateError("m"), 500, "internal_error", "server_error"),
    (InvalidRequest("m"), 400, "invalid_request_error", "invalid_request_error"),
    (BodyTooLarge("m"), 413, "request_too_large", "invalid_request_error"),
    (RequestTimeout("m"), 408, "request_timeout", "invalid_request_error"),
    (InvalidApiKey(), 401, "invalid_api_key", "authentication_error"),
    (PermissionRefused("m"), 403, "permission_denied", "permission_error"),
    (ModelNotFound("m"), 404, "model_not_found", "invalid_request_error"),
    (RouteNotFound("m"), 404, "not_found", "invalid_request_error"),
    (UnknownName("m"), 404, "not_found", "invalid_request_error"),
    (RateLimited("m", 1.0), 429, "rate_limit_exceeded", "rate_limit_error"),
    (BudgetExhausted("m"), 429, "insufficient_quota", "insufficient_quota"),
    (ClientGone("m"), 499, "client_closed_request", "server_error"),
    (UpstreamFailed("m"), 502, "upstream_error", "server_error"),
    (Unavailable("m", 1.0), 503, "service_unavailable", "server_error"),
    (DeadlineExceeded("m"), 504, "deadline_exceeded", "timeout_error"),
    (NotCached("m"), 504, "not_cached", "invalid_request_error"),
]
SDK_RETRIES = {408, 409, 429}
TREE = core.errors.__doc__ or ""


def test_every_error_is_drawn_in_the_tree() -> None:
    kinds = [kind for kind in vars(core.errors).values() if isinstance(kind, type) and issubclass(kind, HeadgateError)]
    assert len(kinds) > 10
    assert [
        kind.__name__ for kind in kinds if f"{kind.__name__}\n" not in TREE and f" {kind.__name__} " not in TREE
    ] == []


@pytest.mark.parametrize(("error", "status", "code", "kind"), EVERY, ids=lambda value: type(value).__name__)
def test_the_wire_names_of_each_error(error: HeadgateError, status: int, code: str, kind: str) -> None:
    assert (error.http_status, error.code, error.type) == (status, code, kind)


@pytest.mark.parametrize("error", [row[0] for row in EVERY], ids=lambda error: type(error).__name__)
def test_the_official_sdk_retries_exactly_what_a_retry_can_help(error: HeadgateError) -> None:
    would_retry = error.http_status in SDK_RETRIES or error.http_status >= 500
    retries = would_retry and error.headers().get("x-should-retry") != "false"
    assert retries is error.retryable


@pytest.mark.parametrize("error", [RateLimited("m", 2.5), Unavailable("m", 2.5)])
def test_a_wait_is_told_in_seconds_and_in_milliseconds(error: HeadgateError) -> None:
    assert error.headers() == {"retry-after": "3", "retry-after-ms": "2500"}


@pytest.mark.parametrize(
    ("seconds", "whole", "milliseconds"),
    [
        (0.0, "1", "1"),
        (-3.0, "1", "1"),
        (0.0004, "1", "1"),
        (1.0, "1", "1000"),
        (1.001, "2", "1001"),
        (60.0, "60", "60000"),
    ],
)
def test_a_wait_is_at_least_one_and_rounded_up(seconds: float, whole: str, milliseconds: str) -> None:
    assert retry_after_headers(seconds) == {"retry-after": whole, "retry-after-ms": milliseconds}


def test_a_rate_limit_tells_the_state_of_its_limits() -> None:
    assert RateLimited("m", 1.0, {"x-ratelimit-limit-requests": "5"}).headers()["x-ratelimit-limit-requests"] == "5"


def test_an_exhausted_budget_tells_when_its_window_ends() -> None:
    error = BudgetExhausted("No budget is left.", datetime(2026, 2, 1, tzinfo=UTC))
    assert error.headers()["x-headgate-budget-reset"] == "2026-02-01T00:00:00+00:00"
    assert "2026-02-01T00:00:00+00:00" in error.message


def test_a_configuration_error_is_one_line_with_file_key_and_mend() -> None:
    assert ConfigurationError("a.yaml", "tiers.small", "lists nothing", "name one").message == (
        "a.yaml: tiers.small: lists nothing; name one"
    )
    assert ConfigurationError("a.yaml", "", "is empty", "fill it").message == "a.yaml: is empty; fill it"


def test_a_model_name_is_shortened_in_the_refusal() -> None:
    assert len(ModelNotFound("x" * 10_000).message) < 250


def test_an_unauthenticated_caller_learns_the_scheme() -> None:
    assert InvalidApiKey().headers() == {"www-authenticate": "Bearer"}
