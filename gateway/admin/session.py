"""The dashboard's login: an administrator's key, sealed into a cookie that only this gateway can read.

Nothing is kept here, so every replica on the same state accepts the cookie, and a key that is revoked ends its sessions
at once: each request opens the cookie and checks the key as if it had come in the header. The cookie is sent to this
site alone (`SameSite=Strict`), is out of reach of scripts, and changes nothing without the header
`x-headgate-dashboard`, which no foreign page can add.
"""

import base64
import binascii
import os
from dataclasses import dataclass
from datetime import timedelta
from http.cookies import CookieError, SimpleCookie

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from core.clock import Clock

COOKIE = "headgate_session"
LIFE = timedelta(hours=12)
DASHBOARD_HEADER = "x-headgate-dashboard"
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Sessions:
    """Seals keys into cookies and opens them; `pepper` is the secret of the gateway's state."""

    pepper: bytes
    clock: Clock

    def seal(self, key: str) -> str:
        """Return the cookie's value for an administrator's key; it ends after 12 hours."""
        ends_at = int((self.clock.now() + LIFE).timestamp())
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._cipher().encrypt(nonce, f"{ends_at}:{key}".encode(), COOKIE.encode())
        return base64.urlsafe_b64encode(nonce + sealed).decode()

    def open(self, value: str) -> str | None:
        """Return the key in a cookie's value, None when it is not ours, was changed, or has ended."""
        try:
            raw = base64.urlsafe_b64decode(value)
            text = self._cipher().decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], COOKIE.encode()).decode()
        except (binascii.Error, ValueError, InvalidTag):
            return None
        ends_at, _, key = text.partition(":")
        return key if self.clock.now().timestamp() < int(ends_at) else None

    def key_in(self, cookie_header: str) -> str | None:
        """Return the key in a `Cookie` header."""
        try:
            morsel = SimpleCookie(cookie_header).get(COOKIE)
        except CookieError:
            return None
        return None if morsel is None else self.open(morsel.value)

    def _cipher(self) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=b"headgate dashboard session").derive(self.pepper))
