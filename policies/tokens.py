"""Bearer tokens (JWT) of an OIDC identity provider, checked against its public keys and mapped to tenants.

Algorithms are the configured asymmetric ones, whatever a token says; `iss`, `aud`, `exp` and `sub` must be there and
right, `nbf` and `iat` may not lie in the future. What was verified is remembered by the SHA-256 of the whole token,
never of a part, until the token expires or the provider's keys change. Failure rule: closed; whatever is wrong, the
answer is `InvalidApiKey`. A wrong token costs at most one signature check, and an address that sends many is told to
wait before any.
"""

import json
import re
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

from core.clock import Clock
from core.errors import ConfigurationError, InvalidApiKey, PermissionRefused, RateLimited
from core.identity import Caller
from policies.access import bearer_of
from policies.failures import FailureLimiter
from policies.identity_provider import OidcEntry
from policies.jwks import KeyRing, check_url, ring_of_file, ring_of_url

MAX_TOKEN_CHARS = 8192
MAX_CLAIM_CHARS = 256
CACHED_TOKENS = 10_000
LEEWAY_S = 30
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\Z")


@dataclass(frozen=True, slots=True)
class _Verified:
    caller: Caller
    expires_at_s: float


class TokenVerifier:
    """Turns bearer tokens into callers."""

    def __init__(
        self,
        entry: OidcEntry,
        ring: KeyRing,
        clock: Clock,
        failures: FailureLimiter | None = None,
        remembered: int = CACHED_TOKENS,
    ) -> None:
        self._entry = entry
        self._ring = ring
        self._clock = clock
        self._failures = FailureLimiter(clock) if failures is None else failures
        self._registry = JWSRegistry(algorithms=list(entry.algorithms), strict_check_header=False)
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: int(clock.now().timestamp()),
            leeway=LEEWAY_S,
            iss={"essential": True, "value": entry.issuer},
            aud={"essential": True, "value": entry.audience},
            exp={"essential": True},
            sub={"essential": True},
        )
        self._verified: OrderedDict[bytes, _Verified] = OrderedDict()
        self._remembered = remembered
        self._generation = ring.generation

    async def run(self) -> None:
        """Keep the provider's keys current until cancelled."""
        await self._ring.run()

    def is_token(self, header_value: str | None) -> bool:
        """Tell whether the header looks like a token, whatever it is worth."""
        return bearer_of(header_value).startswith("eyJ")

    def authenticate(self, header_value: str | None, address: str = "") -> Caller:
        """Return whom the token speaks for.

        Raises:
            InvalidApiKey: not a token, or one that does not prove what it says here and now.
            PermissionRefused: it is right, and carries no scope that is configured.
            RateLimited: the address has sent too many wrong ones.
        """
        token = bearer_of(header_value)
        name = sha256(token.encode("utf-8", "replace")).digest()
        known = self._known(name)
        if known is not None:
            return known.caller
        wait_s = self._failures.wait_s(address)
        if wait_s > 0.0:
            raise RateLimited("Too many wrong API keys came from this address.", wait_s)
        try:
            claims = self._verify(token)
            found = _Verified(self._caller(claims), _moment_s(claims["exp"]))
        except (JoseError, ValueError, TypeError, KeyError, RecursionError) as problem:
            self._failures.note(address)
            raise InvalidApiKey from problem
        self._verified[name] = found
        if len(self._verified) > self._remembered:
            self._verified.popitem(last=False)
        return found.caller

    def _known(self, name: bytes) -> _Verified | None:
        if self._generation != self._ring.generation:
            self._generation = self._ring.generation
            self._verified.clear()
        known = self._verified.get(name)
        if known is None or known.expires_at_s + LEEWAY_S > self._clock.now().timestamp():
            return known
        del self._verified[name]
        return None

    def _verify(self, token: str) -> dict[str, object]:
        """Check form, signature and standing claims; raises JoseError or ValueError."""
        if len(token) > MAX_TOKEN_CHARS or _TOKEN.match(token) is None:
            raise ValueError("not a token")
        header = json.loads(urlsafe_b64decode(token.partition(".")[0].encode()))
        key_id = header.get("kid") if isinstance(header, dict) else None
        key = self._ring.find(key_id if isinstance(key_id, str) else None)
        if key is None:
            raise ValueError("signed by nobody known")
        decoded = jwt.decode(token, key, algorithms=list(self._entry.algorithms), registry=self._registry)
        self._claims.validate(decoded.claims)
        return decoded.claims

    def _caller(self, claims: dict[str, object]) -> Caller:
        named = _text(claims, self._entry.tenant_claim)
        tenant = self._entry.tenants[named] if self._entry.tenants else named
        subject = sha256(f"{self._entry.issuer}\n{_text(claims, 'sub')}".encode()).hexdigest()
        user = None if self._entry.user_claim is None else _text(claims, self._entry.user_claim)
        models, tiers = self._scopes(claims)
        return Caller(tenant, f"oidc_{subject[:16]}", models, tiers, user=user)

    def _scopes(self, claims: dict[str, object]) -> tuple[frozenset[str], frozenset[str]]:
        """Return what the first configured scope of the token allows; two joined would allow more than each."""
        if not self._entry.scopes:
            return frozenset(), frozenset()
        carried = claims.get("scope", claims.get("scp", ""))
        names = carried.split() if isinstance(carried, str) else carried if isinstance(carried, list) else []
        granted = next((entry for name, entry in self._entry.scopes.items() if name in names), None)
        if granted is None:
            raise PermissionRefused("This token carries no scope that may use this gateway.")
        return frozenset(granted.models), frozenset(granted.tiers)


def token_verifier(
    entry: OidcEntry, base: Path, file: str, clock: Clock, failures: FailureLimiter | None = None
) -> TokenVerifier:
    """Build the verifier that the operator's file asks for; `base` is where relative paths start.

    Raises:
        ConfigurationError: the block names no key set or two, or one that cannot be used.
    """
    if (entry.jwks_file is None) == (entry.jwks_url is None):
        raise ConfigurationError(file, "oidc", "needs exactly one of `jwks_file` and `jwks_url`", "keep one of them")
    if not entry.algorithms:
        raise ConfigurationError(file, "oidc.algorithms", "lists none", "write for example [RS256]")
    if entry.jwks_file is not None:
        return TokenVerifier(entry, ring_of_file(base / entry.jwks_file, clock), clock, failures)
    assert entry.jwks_url is not None
    check_url(entry.jwks_url, file)
    return TokenVerifier(entry, ring_of_url(entry.jwks_url, clock), clock, failures)


def _text(claims: dict[str, object], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not 0 < len(value) <= MAX_CLAIM_CHARS:
        raise ValueError(f"the claim {name!r} is not a short text")
    return value


def _moment_s(value: object) -> float:
    if not isinstance(value, int | float):
        raise TypeError("a moment is a number")
    return float(value)
