"""Read what a caller asks for in headers: cache controls, deadline, session, explanation, tier, tags, trace context."""

import re
from collections.abc import Iterable, Mapping

from core.chat import CacheControls, Demands
from core.errors import InvalidApiKey, InvalidRequest
from router.facts import MAX_TAG_CHARACTERS, MAX_TAGS, split_tags

CACHE_WORDS = {"bypass": "bypass", "refresh": "refresh", "no-store": "no_store", "only-if-cached": "only_if_cached"}
PREFIXES = (b"x-headgate-", b"x-stainless-", b"authorization", b"x-api-key", b"content-type", b"traceparent")
SIGN_IN = (b"authorization", b"x-api-key")
DEMANDING_NOTHING = frozenset({"authorization", "x-api-key", "content-type", "traceparent"})
JSON_TYPE = "application/json"
MAX_SESSION_CHARACTERS = 128
MAX_AGE_DIGITS = 10
MAX_CACHE_TAGS = 8
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,63}")
_SCORE = re.compile(r"0(\.\d{1,6})?|1(\.0{1,6})?|\.\d{1,6}")
LONGEST_DEADLINE_MS = 86_400_000
NO_CONTROLS = CacheControls()


def relevant_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return the headers that the gateway reads, by lower-case name.

    Raises:
        InvalidApiKey: `authorization` or `x-api-key` twice; a proxy before us may have looked at the other one.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        if name.startswith(PREFIXES):
            if name in SIGN_IN and name.decode() in found:
                raise InvalidApiKey
            found[name.decode("latin-1")] = value.decode("latin-1")
    return found


def parse_demands(headers: Mapping[str, str], passed: tuple[tuple[str, str], ...] = ()) -> Demands:
    """Parse the request headers of the HTTP surface.

    Raises:
        InvalidRequest: a header that cannot be used; the message names it.
    """
    if headers.keys() <= DEMANDING_NOTHING:
        return Demands(content_type=headers.get("content-type", JSON_TYPE), passed=passed)
    return Demands(
        cache=_cache_controls(headers.get("x-headgate-cache", ""), headers.get("x-headgate-cache-tags", "")),
        deadline_ms=_milliseconds(headers, "x-headgate-deadline-ms", 1),
        read_timeout_ms=_milliseconds(headers, "x-stainless-read-timeout", 1000),
        session=_session(headers.get("x-headgate-session")),
        explain=headers.get("x-headgate-explain", "").lower() == "true",
        tier=headers.get("x-headgate-tier") or None,
        tags=_tags(headers.get("x-headgate-tags", "")),
        passed=passed,
        content_type=headers.get("content-type", JSON_TYPE),
    )


def _cache_controls(value: str, tags: str) -> CacheControls:
    if not value and not tags:
        return NO_CONTROLS
    flags: dict[str, bool] = {}
    max_age_s: int | None = None
    min_score: float | None = None
    for word in filter(None, (part.strip().lower() for part in value.split(","))):
        name, _, argument = word.partition("=")
        if name == "max-age" and argument.isdecimal() and len(argument) <= MAX_AGE_DIGITS:
            max_age_s = int(argument)
        elif name == "min-score" and _SCORE.fullmatch(argument):
            min_score = float(argument)
        elif word in CACHE_WORDS:
            flags[CACHE_WORDS[word]] = True
        else:
            raise InvalidRequest(
                f"x-headgate-cache: {word[:40]!r} is not one of bypass, refresh, no-store, only-if-cached, max-age=N, "
                "min-score=0.N.",
                param="x-headgate-cache",
            )
    return CacheControls(max_age_s=max_age_s, min_score=min_score, tags=_cache_tags(tags), **flags)


def _cache_tags(value: str) -> tuple[str, ...]:
    """Return the distinct tags in their order."""
    tags = tuple(dict.fromkeys(filter(None, (part.strip() for part in value.split(",")))))
    wrong = next((tag for tag in tags if not _TAG.fullmatch(tag)), None)
    if wrong is None and len(tags) <= MAX_CACHE_TAGS:
        return tags
    problem = f"more than {MAX_CACHE_TAGS} tags" if wrong is None else f"{wrong[:40]!r} is no tag"
    raise InvalidRequest(
        f"x-headgate-cache-tags: {problem}; give at most {MAX_CACHE_TAGS}, each up to 64 of A-Z a-z 0-9 . _ : / -",
        param="x-headgate-cache-tags",
    )


def _milliseconds(headers: Mapping[str, str], name: str, factor: int) -> int | None:
    """Read a positive number of `factor` milliseconds; the SDK's own header is ignored when it is not a number."""
    value = headers.get(name)
    if value is None:
        return None
    try:
        milliseconds = int(float(value) * factor)
    except (ValueError, OverflowError):
        milliseconds = 0
    if milliseconds >= 1:
        return min(milliseconds, LONGEST_DEADLINE_MS)
    if name.startswith("x-stainless"):
        return None
    raise InvalidRequest(f"{name} must be a positive number of milliseconds.", param=name)


def _tags(value: str) -> tuple[str, ...]:
    """Refuse tags that would be left out: a rule that a caller relies on must not fail in silence."""
    if not value:
        return ()
    written = [part for part in value.split(",") if part.strip()]
    tags = split_tags(value)
    if len(tags) < len(written):
        raise InvalidRequest(
            f"x-headgate-tags: at most {MAX_TAGS} printable tags of up to {MAX_TAG_CHARACTERS} characters.",
            param="x-headgate-tags",
        )
    return tuple(tags)


def _session(value: str | None) -> str | None:
    if value is not None and len(value) > MAX_SESSION_CHARACTERS:
        raise InvalidRequest(
            f"x-headgate-session is longer than {MAX_SESSION_CHARACTERS} characters.", param="x-headgate-session"
        )
    return value or None
