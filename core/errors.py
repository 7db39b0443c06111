"""The error tree: each class knows its HTTP status, its OpenAI code, whether a retry helps, and how loud to log.

HeadgateError
├── ConfigurationError        start-up refuses; names the file, the key and the mend
├── InvalidRequest            400
│   ├── BodyTooLarge          413
│   └── RequestTimeout        408  the body did not arrive
├── InvalidApiKey             401
├── PermissionRefused         403  the key is narrower than its tenant
├── ModelNotFound             404  the same for "does not exist" and "not granted"
├── RouteNotFound             404  a path or a method that is not served
├── UnknownName               404  a path of the admin API that names nothing
├── RateLimited               429  rate_limit_exceeded, Retry-After
├── BudgetExhausted           429  insufficient_quota, never retried
├── ClientGone                499  logs only
├── UpstreamFailed            502
├── Unavailable               503  overloaded, draining, loading; Retry-After
├── DeadlineExceeded          504
└── NotCached                 504  only-if-cached without an entry
"""

import logging
import math
from datetime import datetime
from typing import ClassVar


class HeadgateError(Exception):
    """An error that Headgate can explain to whoever asked."""

    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False
    log_level: ClassVar[int] = logging.ERROR

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param

    def headers(self) -> dict[str, str]:
        """Return the response headers that tell the client what to do next."""
        return {} if self.retryable else {"x-should-retry": "false"}


class ConfigurationError(HeadgateError):
    """A file that start-up or reload refuses; the message is one line with file, key and mend."""

    code = "invalid_configuration"

    def __init__(self, file: str, key: str, problem: str, mend: str) -> None:
        where = f"{file}: {key}" if key else file
        super().__init__(f"{where}: {problem}; {mend}")
        self.file = file
        self.key = key


class InvalidRequest(HeadgateError):
    """The body or a header cannot be used as it is."""

    code = "invalid_request_error"
    type = "invalid_request_error"
    http_status = 400
    log_level = logging.INFO

    def headers(self) -> dict[str, str]:
        """Return no hints: clients do not retry a 400."""
        return {}


class BodyTooLarge(InvalidRequest):
    """The body passes the configured limit."""

    code = "request_too_large"
    http_status = 413


class RequestTimeout(InvalidRequest):
    """The client began a request and then sent nothing for too long."""

    code = "request_timeout"
    http_status = 408
    retryable = True

    def headers(self) -> dict[str, str]:
        """Close the connection: the rest of the body may still be on its way."""
        return {"connection": "close"}


class InvalidApiKey(HeadgateError):
    """No key, an unknown key, a wrong secret, an expired or revoked key: all look the same."""

    code = "invalid_api_key"
    type = "authentication_error"
    http_status = 401
    log_level = logging.INFO

    def __init__(self, message: str = "Invalid API key.") -> None:
        super().__init__(message)

    def headers(self) -> dict[str, str]:
        """Name the scheme that the gateway expects."""
        return {"www-authenticate": "Bearer"}


class PermissionRefused(HeadgateError):
    """The key's scope is narrower than its tenant's."""

    code = "permission_denied"
    type = "permission_error"
    http_status = 403
    log_level = logging.INFO


class ModelNotFound(HeadgateError):
    """The requested model does not exist or is not granted; the caller cannot tell which."""

    code = "model_not_found"
    type = "invalid_request_error"
    http_status = 404
    log_level = logging.INFO

    def __init__(self, model: str) -> None:
        super().__init__(f"The model {model[:120]!r} does not exist or you do not have access to it.", param="model")


class RouteNotFound(HeadgateError):
    """A path or a method that the gateway does not serve."""

    code = "not_found"
    type = "invalid_request_error"
    http_status = 404
    log_level = logging.INFO


class UnknownName(HeadgateError):
    """The path names something that does not exist."""

    code = "not_found"
    type = "invalid_request_error"
    http_status = 404
    log_level = logging.INFO


class RateLimited(HeadgateError):
    """Requests, tokens or concurrency per tenant or key are used up for now."""

    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    http_status = 429
    retryable = True
    log_level = logging.INFO

    def __init__(self, message: str, retry_after_s: float, limit_headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.limit_headers = limit_headers or {}

    def headers(self) -> dict[str, str]:
        """Return `Retry-After`, `retry-after-ms` and the `x-ratelimit-*` state."""
        return retry_after_headers(self.retry_after_s) | self.limit_headers


class BudgetExhausted(HeadgateError):
    """A hard budget has no room for this request; without `x-should-retry` the official SDK asks three times."""

    code = "insufficient_quota"
    type = "insufficient_quota"
    http_status = 429
    log_level = logging.INFO

    def __init__(self, message: str, resets_at: datetime | None = None) -> None:
        super().__init__(message if resets_at is None else f"{message} The budget resets at {resets_at.isoformat()}.")
        self.resets_at = resets_at

    def headers(self) -> dict[str, str]:
        """Forbid retries and tell when the window ends (ISO 8601, UTC)."""
        reset = {} if self.resets_at is None else {"x-headgate-budget-reset": self.resets_at.isoformat()}
        return {"x-should-retry": "false"} | reset


class ClientGone(HeadgateError):
    """The client closed the connection; logged as 499, never sent and never counted against a deployment."""

    code = "client_closed_request"
    http_status = 499
    log_level = logging.INFO


class UpstreamFailed(HeadgateError):
    """Every planned deployment failed before the first byte, or one broke off after it."""

    code = "upstream_error"
    http_status = 502
    retryable = True
    log_level = logging.WARNING


class Unavailable(HeadgateError):
    """Overloaded, draining, loading, or the budget store is away."""

    code = "service_unavailable"
    http_status = 503
    retryable = True
    log_level = logging.WARNING

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s

    def headers(self) -> dict[str, str]:
        """Return a truthful `Retry-After`."""
        return retry_after_headers(self.retry_after_s)


class DeadlineExceeded(HeadgateError):
    """The SLA deadline of the tier, or the client's own, passed."""

    code = "deadline_exceeded"
    type = "timeout_error"
    http_status = 504
    log_level = logging.WARNING


class NotCached(HeadgateError):
    """`only-if-cached` was asked for and no entry may be served."""

    code = "not_cached"
    type = "invalid_request_error"
    http_status = 504
    log_level = logging.INFO


def reason_of(cancelled: BaseException) -> HeadgateError:
    """Return why a request was cancelled: the error that the canceller gave as message, else that the client left."""
    given = next((message for message in cancelled.args if isinstance(message, HeadgateError)), None)
    return given or ClientGone("The client closed the connection.")


def let_go(error: BaseException) -> None:
    """Forget where an error came from, once it was told: the frames it passed hold it in turn, and much besides."""
    error.__traceback__ = error.__context__ = error.__cause__ = None


def retry_after_headers(seconds: float) -> dict[str, str]:
    """Render a wait in both forms the official SDKs read: whole seconds and milliseconds, both rounded up."""
    return {"retry-after": str(max(1, math.ceil(seconds))), "retry-after-ms": str(max(1, math.ceil(seconds * 1000)))}
