"""URLs of configuration, checked when it is read."""

from urllib.parse import urlsplit

from core.errors import ConfigurationError


def plain_url(value: str | None, file: str, key: str, example: str = "https://host/v1") -> str:
    """Accept an http(s) URL without credentials, query or fragment.

    Raises:
        ConfigurationError: it is missing or something else.
    """
    if value is None:
        raise ConfigurationError(file, key, "the key is missing", "write the URL up to and with /v1")
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and bool(url.hostname) and (url.port is None or url.port > 0)
    except ValueError:
        usable = False
    if not usable or url.query or url.fragment or url.username or url.password:
        raise ConfigurationError(file, key, f"{value[:80]!r} is not a plain http(s) URL", f"write {example}")
    return value.rstrip("/")
