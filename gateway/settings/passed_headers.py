"""The headers that an operator lets through to a deployment, and from it to the client; nothing else passes."""

import re
from collections.abc import Iterable, Sequence

from core.errors import ConfigurationError

NEVER = frozenset(
    {
        "accept", "accept-encoding", "authorization", "connection", "content-encoding", "content-length",
        "content-type", "cookie", "date", "expect", "forwarded", "host", "keep-alive", "server", "set-cookie", "te",
        "traceparent", "trailer", "transfer-encoding", "upgrade", "user-agent", "via", "x-api-key", "x-request-id",
    }
)  # fmt: skip
NEVER_BEGINS = ("x-headgate-", "x-forwarded-", "x-stainless-", "x-ratelimit-", "proxy-", "access-control-", "sec-")
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}\Z")


def checked_headers(names: Sequence[str], file: str, key: str) -> frozenset[str]:
    """Return the names in lower case.

    Raises:
        ConfigurationError: one is no header's name, or belongs to the connection, to a key or to the gateway.
    """
    for at, name in enumerate(names):
        if not _NAME.match(name.lower()):
            problem = f"{name[:60]!r} is no header's name"
            raise ConfigurationError(file, f"{key}[{at}]", problem, "write one such as openai-beta")
        if name.lower() in NEVER or name.lower().startswith(NEVER_BEGINS):
            problem = f"{name[:60]!r} never passes: it belongs to the connection, to a key or to the gateway"
            raise ConfigurationError(file, f"{key}[{at}]", problem, "remove it from the list")
    return frozenset(name.lower() for name in names)


def passed_headers(headers: Iterable[tuple[bytes, bytes]], names: frozenset[bytes]) -> tuple[tuple[str, str], ...]:
    """Return the caller's headers that some deployment may be given, in a fixed order."""
    if not names:
        return ()
    return tuple(sorted((name.decode(), value.decode("latin-1")) for name, value in headers if name in names))
