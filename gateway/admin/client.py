"""A small client of the admin API for commands: loopback or https only, never through a proxy of the environment."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

import httpx

from core.errors import ConfigurationError, HeadgateError
from gateway.settings.listening import Address
from gateway.settings.operator import Settings, load_settings

TIMEOUT_S = 10.0
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - a listener's address, turned into a reachable one
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


class NotRunning(HeadgateError):
    """No gateway answers on its admin listener."""

    code = "not_running"


class Refused(HeadgateError):
    """The gateway answered with an error; its message says what is wrong."""

    code = "refused"


class AdminClient:
    """Sends one administrator's requests."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **query: str | None) -> dict[str, Any]:
        """Return the JSON object at `path`, asked with what is given of `query`; raises NotRunning or Refused."""
        given = urlencode({name: value for name, value in query.items() if value})
        return self._sent("GET", f"{path}?{given}" if given else path, None)

    def post(self, path: str, body: dict[str, object]) -> dict[str, Any]:
        """Post a JSON object and return the answer; raises NotRunning or Refused."""
        return self._sent("POST", path, body)

    def _sent(self, method: str, path: str, body: dict[str, object] | None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, path, json=body)
        except httpx.TransportError as problem:
            where = str(self._client.base_url).rstrip("/")
            raise NotRunning(
                f"no gateway answers at {where}; start it with `headgate serve`, or name it with --admin-url"
            ) from problem
        try:
            found = answer.json()
        except ValueError as problem:
            raise Refused(f"what answers at {self._client.base_url} is not a Headgate admin listener") from problem
        if answer.is_success and isinstance(found, dict):
            return found
        told = found.get("error") if isinstance(found, dict) else None
        raise Refused(
            str(cast(dict[str, Any], told or {}).get("message") or f"the gateway answered {answer.status_code}")
        )


@contextmanager
def open_client(config: Path, admin_url: str | None) -> Iterator[AdminClient]:
    """Open a client for the gateway that the configuration describes, with its admin key.

    Raises:
        ConfigurationError: there is no key file, or the key would travel unprotected.
    """
    settings = load_settings(config)
    address = settings.admin_listen
    url = admin_url or url_of(address)
    _check(url)
    headers = {"authorization": f"Bearer {_owner_key(settings)}"}
    transport = _transport(address) if admin_url is None else None
    with httpx.Client(base_url=url, headers=headers, timeout=TIMEOUT_S, trust_env=False, transport=transport) as client:
        yield AdminClient(client)


def _transport(address: Address) -> httpx.HTTPTransport | None:
    """Return how to reach the own listener where that takes more than its URL: a socket's path, its own certificate."""
    verify: ssl.SSLContext | bool = True
    if address.tls is not None:
        verify = ssl.create_default_context(cafile=str(address.tls.certificate))
        verify.check_hostname = False  # it is this certificate that is trusted, whatever name it bears
    if address.tls is None and address.unix is None:
        return None
    return httpx.HTTPTransport(verify=verify, uds=None if address.unix is None else str(address.unix))


def url_of(address: Address) -> str:
    """Return the URL under which this machine reaches a listener."""
    scheme = "http" if address.tls is None else "https"
    if address.unix is not None:
        return f"{scheme}://localhost"
    host = EVERYWHERE.get(address.host, address.host)
    return f"{scheme}://[{host}]:{address.port}" if ":" in host else f"{scheme}://{host}:{address.port}"


def _check(url: str) -> None:
    parts = urlsplit(url)
    if not parts.hostname or not (parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)):
        mend = "use https, or run the command on the gateway's machine"
        raise ConfigurationError("--admin-url", "", f"{url[:80]!r} would carry the admin key unprotected", mend)


def _owner_key(settings: Settings) -> str:
    try:
        return settings.admin_key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as problem:
        mend = "start the gateway once with `headgate serve`, which makes it"
        raise ConfigurationError(
            str(settings.admin_key_file), "admin.key_file", "the admin key cannot be read", mend
        ) from problem
