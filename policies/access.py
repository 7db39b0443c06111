"""Who may come in, and how far: keys are checked from the header alone, scopes once the request is known.

Flow: `Access.authenticate` turns a header into a `Caller` before the body is read; `check_scopes` and `narrowed` hold
the request to what the key was narrowed to. Failure rule: closed. Whatever is wrong with a key, the answer is the same
`InvalidApiKey` at the same cost: one look-up by id, one HMAC (or, repeated, a hash that stands for it), one
constant-time comparison. An address that fails too often is told to wait, and until then its unknown keys are not
looked up at all; keys that are known go on working.
"""

import hashlib
import hmac
import re
import secrets
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

from core.chat import ChatRequest
from core.clock import Clock
from core.errors import InvalidApiKey, PermissionRefused, RateLimited
from core.identity import Caller
from core.rules import AutoTarget, DeploymentTarget, EffectivePolicy, RuledTarget, TierTarget
from policies.failures import FailureLimiter
from policies.keys import ADMIN_PREFIX, TENANT_PREFIX, KeyRecord, KeyStore, Role, digest_of

MAX_HEADER_CHARS = 200
REFRESH_S = 0.5
"""How long cached records are trusted; a revocation elsewhere takes effect within this time."""
CACHED_RECORDS = 100_000
CACHED_DIGESTS = 10_000
CACHED_MISSES = 10_000
"""Ids that do not exist are remembered apart, so that guesses never push out keys that do."""

Kept = TypeVar("Kept")
_KEY = re.compile(r"(hga?)_([0-9a-f]{16})_([0-9a-f]{64})\Z")
_BEARER = re.compile(r"bearer +", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Administrator:
    """An authenticated administrator: a name for the audit log (a key's id), and what it may do."""

    name: str
    role: Role


class CallerSource(Protocol):
    """Who turns a header into a caller."""

    def authenticate(self, header_value: str | None, address: str = "") -> Caller:
        """Return who sent the header from `address`, or raise InvalidApiKey or RateLimited."""
        ...


class TokenSource(CallerSource, Protocol):
    """Who turns the bearer tokens of an identity provider into callers."""

    def is_token(self, header_value: str | None) -> bool:
        """Tell whether the header looks like such a token."""
        ...


class _Presented(NamedTuple):
    """What a header says: a key of some kind, and the digest that its record must have."""

    prefix: str
    key_id: str
    digest: bytes


class KeyChecker:
    """Finds the record that a header proves possession of; records are cached, so that most requests read nothing.

    `prefix` names the kind of key that it accepts.
    """

    def __init__(
        self, prefix: str, store: KeyStore, pepper: bytes, clock: Clock, failures: FailureLimiter | None = None
    ) -> None:
        self._prefix = prefix
        self._store = store
        self._pepper = pepper
        self._clock = clock
        self._failures = FailureLimiter(clock) if failures is None else failures
        self._found: OrderedDict[str, KeyRecord] = OrderedDict()
        self._missing: OrderedDict[str, None] = OrderedDict()
        self._stale: set[str] = set()
        self._revision = store.revision()
        self._checked_at_s = clock.monotonic_s()
        self._nobody = KeyRecord("", "", secrets.token_bytes(32), frozenset(), clock.now())
        self._proof_key = secrets.token_bytes(32)
        self._lately: OrderedDict[bytes, _Presented] = OrderedDict()

    def check(self, header_value: str | None, address: str) -> KeyRecord:
        """Return the valid record of the key that the header presents.

        Raises:
            InvalidApiKey: no key, not a key, of the other kind, unknown, wrong, expired or revoked.
            RateLimited: any of these, from an address that failed too often.
        """
        presented = self._presented(header_value)
        wait_s = self._failures.wait_s(address)
        record = self._record(presented.key_id, may_look=wait_s == 0.0)
        known = self._nobody if record is None else record
        is_right = hmac.compare_digest(presented.digest, known.digest)
        is_kind = presented.prefix == self._prefix and (known.role is not None) == (self._prefix == ADMIN_PREFIX)
        is_theirs = is_right and is_kind and record is not None
        if is_theirs and (known.is_valid_for_ever or known.is_valid_at(self._clock.now())):
            return known
        if wait_s > 0.0:
            raise RateLimited("Too many wrong API keys came from this address.", wait_s)
        self._failures.note(address)
        raise InvalidApiKey

    def _presented(self, header_value: str | None) -> _Presented:
        """Read a header; lately read ones are known by a quicker hash of this process, never by their text."""
        text = (header_value or "")[:MAX_HEADER_CHARS]
        name = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._proof_key, digest_size=32).digest()
        presented = self._lately.get(name)
        if presented is None:
            prefix, key_id, secret = _parts(text)
            presented = _Presented(prefix, key_id, digest_of(self._pepper, self._prefix, key_id, secret))
            self._lately[name] = presented
            if len(self._lately) > CACHED_DIGESTS:
                self._lately.popitem(last=False)
        return presented

    def _record(self, key_id: str, *, may_look: bool) -> KeyRecord | None:
        """Return the record; what was looked up is remembered, so that repeating a guess costs no look-up.

        An id that was known before the records were forgotten may be looked up once more even for an address that
        guesses: otherwise any change of a key would shut out the known keys behind the same address.
        """
        now_s = self._clock.monotonic_s()
        if now_s - self._checked_at_s >= REFRESH_S:
            self._refresh(now_s)
        record = self._found.get(key_id)
        if record is not None or not key_id or key_id in self._missing:
            return record
        if not may_look and key_id not in self._stale:
            return None
        self._stale.discard(key_id)
        record = self._store.get(key_id)
        if record is None:
            self._missing[key_id] = None
            _bound(self._missing, CACHED_MISSES)
        else:
            self._found[key_id] = record
            _bound(self._found, CACHED_RECORDS)
        return record

    def _refresh(self, now_s: float) -> None:
        """Forget all records when any may have changed."""
        revision = self._store.revision()
        self._checked_at_s = now_s  # only once the store has answered: what it cannot confirm is not trusted
        if revision != self._revision:
            self._revision = revision
            self._stale = set(self._found)
            self._found.clear()
            self._missing.clear()


class Authenticator:
    """Turns a tenant's key into a caller."""

    def __init__(self, store: KeyStore, pepper: bytes, clock: Clock, failures: FailureLimiter | None = None) -> None:
        self._checker = KeyChecker(TENANT_PREFIX, store, pepper, clock, failures)
        self._callers: OrderedDict[str, tuple[KeyRecord, Caller]] = OrderedDict()

    def authenticate(self, header_value: str | None, address: str = "") -> Caller:
        """Return who sent `header_value`, which is `Bearer KEY` or the key alone, from `address`.

        Raises:
            InvalidApiKey: nobody can tell from it what is wrong.
            RateLimited: the address has sent too many wrong keys.
        """
        record = self._checker.check(header_value, address)
        known = self._callers.get(record.key_id)
        if known is not None and known[0] is record:
            return known[1]
        caller = Caller(record.tenant, record.key_id, record.allowed_models, record.allowed_tiers, record.allowed_users)
        self._callers[record.key_id] = record, caller
        _bound(self._callers, CACHED_RECORDS)
        return caller


class AdminAuthenticator:
    """Turns an administrator's key, or the owner key of the key file, into an administrator."""

    def __init__(
        self, owner_key: str, store: KeyStore, pepper: bytes, clock: Clock, failures: FailureLimiter | None = None
    ) -> None:
        self._owner_key = owner_key.encode()
        self._checker = KeyChecker(ADMIN_PREFIX, store, pepper, clock, failures)

    def authenticate(self, header_value: str | None, address: str = "") -> Administrator:
        """Return who sent `header_value`, which must be `Bearer KEY`.

        Raises:
            InvalidApiKey: nobody can tell from it what is wrong; a tenant's key is as wrong as any.
            RateLimited: the address has sent too many wrong keys.
        """
        scheme = _BEARER.match(header_value or "")
        if header_value is None or scheme is None:
            raise InvalidApiKey
        if hmac.compare_digest(header_value[scheme.end() :].strip().encode(), self._owner_key):
            return Administrator("key_file", Role.OWNER)
        record = self._checker.check(header_value, address)
        assert record.role is not None
        return Administrator(record.key_id, record.role)


class Access:
    """What the public listener asks: keys, and where configured the tokens of an identity provider."""

    def __init__(self, keys: CallerSource, tokens: TokenSource | None = None) -> None:
        self._keys = keys
        self._tokens = tokens

    def authenticate(self, header_value: str | None, address: str = "") -> Caller:
        """Return who sent the header, or raise InvalidApiKey or RateLimited."""
        if self._tokens is not None and self._tokens.is_token(header_value):
            return self._tokens.authenticate(header_value, address)
        return self._keys.authenticate(header_value, address)


def check_scopes(caller: Caller, policy: EffectivePolicy, request: ChatRequest) -> Caller:
    """Hold a request to the end users and tiers of its key, and return the caller with its end user.

    A caller whose user is known already (by its token), or who may speak for one user only, needs not name it. A key
    that is narrowed to tiers may name those tiers and `auto`, never a deployment.

    Raises:
        PermissionRefused: the request names, or leaves open, an end user or a tier outside the key's scopes.
    """
    user = _user(caller, request.user)
    check_tiers(caller, policy)
    return caller if user == caller.user else replace(caller, user=user)


def check_tiers(caller: Caller, policy: EffectivePolicy) -> None:
    """Hold a target to the tiers of the caller's key.

    Raises:
        PermissionRefused: it lies outside of them.
    """
    if not caller.allowed_tiers:
        return
    what = "this model stands for"
    match policy.target:
        case AutoTarget():
            is_allowed = not caller.allowed_tiers.isdisjoint(policy.tenant_policy.tiers)
        case TierTarget(tier):
            is_allowed = tier in caller.allowed_tiers
        case DeploymentTarget():
            is_allowed = False
        case RuledTarget(rule, use):
            what, is_allowed = f"the rule {rule!r} asks for", use in caller.allowed_tiers
    if not is_allowed:
        raise PermissionRefused(f"This API key may not use the tier that {what}.", param="model")


def narrowed(policy: EffectivePolicy, caller: Caller) -> EffectivePolicy:
    """Return the policy with nothing but the tiers of the key, for planning and the cache; call `check_scopes` first.

    The version tells of the narrowing, so that an answer given under it is not served to keys without it.
    """
    if not caller.allowed_tiers:
        return policy
    rules = policy.tenant_policy
    tiers = tuple(tier for tier in rules.tiers if tier in caller.allowed_tiers)
    if tiers == rules.tiers:
        return policy
    version = f"{rules.version}/{'+'.join(tiers)}"
    return replace(policy, tenant_policy=replace(rules, tiers=tiers, deployments=frozenset(), version=version))


def bearer_of(header_value: str | None) -> str:
    """Return the credentials of `Bearer CREDENTIALS`, or of the value alone."""
    text = header_value or ""
    scheme = _BEARER.match(text)
    return (text[scheme.end() :] if scheme else text).strip()


def _user(caller: Caller, named: str | None) -> str | None:
    if caller.user is not None and named not in (None, caller.user):
        raise PermissionRefused("This token speaks for another end user than the one named in `user`.", param="user")
    user = named if caller.user is None else caller.user
    if not caller.allowed_users:
        return user
    if user is None and len(caller.allowed_users) == 1:
        (user,) = caller.allowed_users
    if user not in caller.allowed_users:
        raise PermissionRefused("This API key may not speak for this end user.", param="user")
    return user


def _bound(cached: OrderedDict[str, Kept], most: int) -> None:
    if len(cached) > most:
        cached.popitem(last=False)


def _parts(text: str) -> tuple[str, str, str]:
    """Split a header into prefix, id and secret; what is not a key gives an id that cannot exist."""
    scheme = _BEARER.match(text)
    match = _KEY.match(text[scheme.end() :].strip() if scheme else text.strip())
    return (match[1], match[2], match[3]) if match else ("", "", "")
