"""The public keys of an identity provider (a JWK set), from a file or a URL, kept current in the background.

Bounded: a set has at most `MAX_KEYS` keys and `MAX_BYTES`. Symmetric keys are refused, since a set that is published
must not hold a secret, and whoever reads it could sign. Failure rule: a set that cannot be read leaves the last good
one in force; without any, every token is refused.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

from core.clock import Clock
from core.errors import ConfigurationError

MAX_KEYS = 100
MAX_BYTES = 256 * 1024
MIN_RSA_BITS = 2048
FILE_EVERY_S = 10.0
URL_EVERY_S = 300.0
ASKED_EVERY_S = 10.0
"""How soon an unknown key id may have the set read again, so that forged ids cause no storm of requests."""
TIMEOUT_S = 5.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

_logger = logging.getLogger(__name__)
PublicKey = RSAKey | ECKey | OKPKey


class KeyRing:
    """The keys in force by id; `generation` changes whenever they do."""

    def __init__(self, read: Callable[[], bytes], clock: Clock, every_s: float) -> None:
        """Begin without keys; `read` returns the set as JSON and runs in a thread."""
        self._read = read
        self._clock = clock
        self._every_s = every_s
        self._text = b""
        self._asked = asyncio.Event()
        self._keys: dict[str | None, PublicKey] = {}
        self.generation = 0

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, key_id: str | None) -> PublicKey | None:
        """Return the key of that id; without an id, the only key there is. What is unknown is asked for again."""
        if key_id is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        found = self._keys.get(key_id)
        if found is None:
            self._asked.set()
        return found

    def load(self) -> None:
        """Read the set now and put it in force; raises ValueError or OSError, and what was in force stays."""
        text = self._read()
        if text != self._text:
            self._keys, self._text = parse_keys(text), text
            self.generation += 1

    async def run(self) -> None:
        """Keep the set current until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.load)
            except (ValueError, OSError, httpx.HTTPError) as problem:
                _logger.error("keys of the identity provider not read", extra={"problem": str(problem)[:200]})
            self._asked.clear()
            await asyncio.sleep(min(ASKED_EVERY_S, self._every_s))
            try:
                async with asyncio.timeout(max(0.0, self._every_s - ASKED_EVERY_S)):
                    await self._asked.wait()
            except TimeoutError:
                continue


def parse_keys(text: bytes) -> dict[str | None, PublicKey]:
    """Return the usable signature keys of a JWK set by id (None: a key without one).

    Raises:
        ValueError: not a JWK set, too large, a symmetric or weak key, or no key that can verify a signature.
    """
    try:
        listed = json.loads(text if len(text) <= MAX_BYTES else "")["keys"]
        if not 0 < len(listed) <= MAX_KEYS or any(one.get("kty") == "oct" for one in listed):
            raise ValueError("no keys, too many, or a symmetric one among them")
        candidates = KeySet.import_key_set({"keys": [one for one in listed if one.get("use", "sig") == "sig"]})
    except (
        JoseError,
        json.JSONDecodeError,
        UnicodeDecodeError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as problem:
        raise ValueError(f"not a usable JWK set ({type(problem).__name__})") from problem
    keys: dict[str | None, PublicKey] = {}
    for key in candidates:
        if isinstance(key, RSAKey) and key.raw_value.key_size < MIN_RSA_BITS:
            raise ValueError(f"an RSA key has fewer than {MIN_RSA_BITS} bits")
        if isinstance(key, RSAKey | ECKey | OKPKey):
            keys[key.kid] = key
    if not keys:
        raise ValueError("it holds no key that can verify a signature")
    return keys


def ring_of_file(path: Path, clock: Clock) -> KeyRing:
    """Read the set of a file, and again when it changes.

    Raises:
        ConfigurationError: it cannot be used.
    """
    ring = KeyRing(lambda: _read_file(path), clock, FILE_EVERY_S)
    try:
        ring.load()
    except (ValueError, OSError) as problem:
        said = f"cannot be used as a JWK set ({problem})"
        raise ConfigurationError(str(path), "oidc.jwks_file", said, "save the provider's key set there") from problem
    return ring


def ring_of_url(url: str, clock: Clock) -> KeyRing:
    """Read the set from a URL, first when `run` starts; until then every token is refused."""
    return KeyRing(lambda: _fetch(url), clock, URL_EVERY_S)


def check_url(url: str, file: str) -> None:
    """Refuse a URL that is neither https nor on this machine: who can alter the answer can mint tokens.

    Raises:
        ConfigurationError: with the mend.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
        usable = usable and bool(parts.hostname) and not parts.username and not parts.password and not parts.fragment
    except ValueError:
        usable = False
    if not usable:
        said = f"{url[:80]!r} is neither https nor on this machine"
        raise ConfigurationError(file, "oidc.jwks_url", said, "write the provider's https URL")


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _fetch(url: str) -> bytes:
    """Read at most `MAX_BYTES` of an answer 200; redirects are not followed, proxies of the environment not used."""
    with (
        httpx.Client(timeout=TIMEOUT_S, trust_env=False, follow_redirects=False) as client,
        client.stream("GET", url, headers={"accept": "application/json"}) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"the provider answered {answer.status_code}")
        text = b""
        for chunk in answer.iter_bytes():
            text += chunk
            if len(text) > MAX_BYTES:
                break
        return text
