"""Bearer tokens of an identity provider: only what is signed, fresh, ours and mapped lets anyone in."""

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey

from core.clock import ManualClock
from core.errors import ConfigurationError, InvalidApiKey, PermissionRefused, RateLimited
from core.identity import Caller
from policies.failures import FailureLimiter
from policies.identity_provider import OidcEntry, ScopeEntry
from policies.jwks import MAX_BYTES, KeyRing, parse_keys
from policies.tokens import TokenVerifier, token_verifier

ISSUER, AUDIENCE = "https://login.example", "headgate"
KEY = ECKey.generate_key("P-256", {"kid": "k1"})
OTHER = ECKey.generate_key("P-256", {"kid": "k2"})
RSA = RSAKey.generate_key(2048, {"kid": "r1"})


def key_set(*keys: Any) -> bytes:
    return json.dumps({"keys": [key.as_dict(private=False) for key in keys]}).encode()


def entry(**more: Any) -> OidcEntry:
    return OidcEntry(issuer=ISSUER, audience=AUDIENCE, tenant_claim="org", **more)


@dataclass
class Provider:
    """A verifier together with what its tests turn: the clock and the published keys."""

    clock: ManualClock
    published: list[bytes]
    ring: KeyRing
    verifier: TokenVerifier

    def admit(self, token: str) -> Caller:
        return self.verifier.authenticate(f"Bearer {token}", "192.0.2.1")

    def refuse(self, token: str) -> None:
        with pytest.raises(InvalidApiKey):
            self.admit(token)

    def token(self, key: Any = KEY, alg: str = "ES256", header: dict[str, Any] | None = None, **claims: Any) -> str:
        now_s = int(self.clock.now().timestamp())
        said = {"iss": ISSUER, "aud": AUDIENCE, "sub": "u1", "org": "acme", "exp": now_s + 600} | claims
        left = {name: value for name, value in said.items() if value != ""}
        return jwt.encode({"alg": alg, "kid": key.kid} | (header or {}), left, key, [alg])


@pytest.fixture
def provide() -> Callable[..., Provider]:
    def build(entry_: OidcEntry | None = None, per_minute: int = 1000, remembered: int = 100) -> Provider:
        clock, published = ManualClock(), [key_set(KEY, RSA)]
        ring = KeyRing(lambda: published[0], clock, 10.0)
        ring.load()
        limiter = FailureLimiter(clock, per_minute=per_minute)
        verifier = TokenVerifier(entry_ or entry(), ring, clock, limiter, remembered)
        return Provider(clock, published, ring, verifier)

    return build


@pytest.fixture
def provider(provide: Callable[..., Provider]) -> Provider:
    return provide()


def test_a_right_token_lets_its_tenant_in(provider: Provider) -> None:
    caller = provider.admit(provider.token())
    assert (caller.tenant, caller.user, caller.allowed_models) == ("acme", None, frozenset())
    assert caller.key_id.startswith("oidc_")


def test_subjects_are_told_apart_by_key_id_without_naming_them(provider: Provider) -> None:
    ids = {provider.admit(provider.token(sub=sub)).key_id for sub in ("ada@example", "bob@example")}
    assert len(ids) == 2
    assert not any("example" in key_id for key_id in ids)


def test_the_user_claim_binds_the_end_user(provide: Callable[..., Provider]) -> None:
    provider = provide(entry(user_claim="sub"))
    assert provider.admit(provider.token(sub="ada")).user == "ada"


def test_mapped_names_are_the_only_ones_that_count(provide: Callable[..., Provider]) -> None:
    provider = provide(entry(tenants={"org-7": "acme"}))
    assert provider.admit(provider.token(org="org-7")).tenant == "acme"
    provider.refuse(provider.token(org="acme"))


def test_an_audience_among_others_is_ours_too(provider: Provider) -> None:
    assert provider.admit(provider.token(aud=["other", AUDIENCE])).tenant == "acme"


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://elsewhere.example"},
        {"iss": ""},
        {"aud": "other"},
        {"aud": ["other"]},
        {"aud": ""},
        {"exp": ""},
        {"exp": 1},
        {"exp": "tomorrow"},
        {"sub": ""},
        {"org": ""},
        {"org": 7},
        {"org": ["acme"]},
        {"org": "x" * 257},
        {"nbf": 4_000_000_000},
        {"iat": 4_000_000_000},
    ],
)
def test_a_claim_that_is_missing_or_wrong_is_refused(provider: Provider, claims: dict[str, Any]) -> None:
    provider.refuse(provider.token(**claims))


def test_a_token_ends_also_when_it_is_remembered(provider: Provider) -> None:
    token = provider.token()
    provider.admit(token)
    provider.clock.advance(600 + 31)
    provider.refuse(token)


def test_a_signature_by_another_key_is_refused(provider: Provider) -> None:
    provider.refuse(provider.token(OTHER))
    provider.refuse(provider.token(OTHER, header={"kid": "k1"}))


def test_a_changed_token_is_refused_though_it_begins_like_a_right_one(provider: Provider) -> None:
    token = provider.token()
    provider.admit(token)
    head, claims, signature = token.split(".")
    forged = json.loads(base64.urlsafe_b64decode(claims + "==")) | {"org": "other"}
    body = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    provider.refuse(f"{head}.{body}.{signature}")
    provider.refuse(token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB"))
    assert provider.admit(token).tenant == "acme"


@pytest.mark.parametrize("alg", ["none", "HS256", "RS256", "ES384"])
def test_the_algorithm_is_ours_to_choose(provider: Provider, alg: str) -> None:
    _, claims, signature = provider.token().split(".")
    wrong = base64.urlsafe_b64encode(json.dumps({"alg": alg, "kid": "k1"}).encode()).rstrip(b"=").decode()
    provider.refuse(f"{wrong}.{claims}.{signature}")
    provider.refuse(f"{wrong}.{claims}.")


def test_a_public_key_used_as_a_shared_secret_signs_nothing(provider: Provider) -> None:
    public = RSA.as_pem(private=False)
    head = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"r1"}').rstrip(b"=")
    claims = provider.token().split(".")[1].encode()
    signature = base64.urlsafe_b64encode(hmac.digest(public, head + b"." + claims, "sha256")).rstrip(b"=")
    provider.refuse((head + b"." + claims + b"." + signature).decode())


def test_rsa_tokens_are_checked_too(provider: Provider) -> None:
    assert provider.admit(provider.token(RSA, "RS256")).tenant == "acme"
    provider.refuse(provider.token(RSA, "PS256"))


@pytest.mark.parametrize(
    "token", ["eyJ", "eyJ.a.b", "eyJhbGciOiJFUzI1NiJ9.e30.", "eyJ\x00.a.b", "eyJ" + "a" * 10_000 + ".a.b", "eyJé.a.b",
              "eyJhIjpbW1tb.a.b", "eyJhbGciOiJFUzI1NiIsImtpZCI6W119.e30.AA"],
)  # fmt: skip
def test_what_is_no_token_is_refused(provider: Provider, token: str) -> None:
    assert provider.verifier.is_token(token)
    provider.refuse(token)


def test_scopes_narrow_and_two_together_allow_no_more_than_one(provide: Callable[..., Provider]) -> None:
    scopes = {"small": ScopeEntry(tiers=["small"]), "chat": ScopeEntry(models=["gpt-4o"])}
    provider = provide(entry(scopes=scopes))
    both = provider.admit(provider.token(scope="openid chat small"))
    assert (both.allowed_models, both.allowed_tiers) == (frozenset(), frozenset({"small"}))
    chat = provider.admit(provider.token(scp=["chat"]))
    assert (chat.allowed_models, chat.allowed_tiers) == (frozenset({"gpt-4o"}), frozenset())
    for claims in ({"scope": "openid smallest"}, {}, {"scope": 7}):
        with pytest.raises(PermissionRefused):
            provider.admit(provider.token(**claims))


def test_an_address_that_sends_many_wrong_tokens_waits_before_any_signature_is_checked(
    provide: Callable[..., Provider],
) -> None:
    provider = provide(per_minute=3)
    known, unknown = provider.token(), provider.token(sub="u2")
    provider.admit(known)
    for _ in range(3):
        provider.refuse(provider.token(OTHER))
    with pytest.raises(RateLimited):
        provider.admit(unknown)
    assert provider.admit(known).tenant == "acme"
    assert provider.verifier.authenticate(unknown, "192.0.2.9").tenant == "acme"


def test_a_key_that_is_withdrawn_takes_its_tokens_along(provider: Provider) -> None:
    token = provider.token()
    provider.admit(token)
    provider.published[0] = key_set(OTHER)
    provider.ring.load()
    provider.refuse(token)
    assert provider.admit(provider.token(OTHER)).tenant == "acme"


def test_a_key_set_that_cannot_be_read_leaves_the_last_one_in_force(provider: Provider) -> None:
    provider.published[0] = b"<html>"
    with pytest.raises(ValueError, match="JWK set"):
        provider.ring.load()
    assert provider.admit(provider.token()).tenant == "acme"


def test_no_more_than_a_bounded_number_of_tokens_is_remembered(provide: Callable[..., Provider]) -> None:
    provider = provide(per_minute=1, remembered=2)
    first, second, third = (provider.token(sub=f"u{number}") for number in range(3))
    for token in (first, second, third):
        provider.admit(token)
    provider.refuse("eyJ.a.b")
    with pytest.raises(RateLimited):
        provider.admit(first)
    assert provider.admit(third).tenant == "acme"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": []}',
        b'{"keys": 7}',
        b'{"keys": [7]}',
        b'{"keys": [{"kty": "new"}]}',
        key_set(KEY) + b" " * MAX_BYTES,
        json.dumps({"keys": [OctKey.generate_key(256).as_dict()]}).encode(),
        json.dumps({"keys": [KEY.as_dict(private=False) | {"use": "enc"}]}).encode(),
    ],
)
def test_a_key_set_that_proves_nothing_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each has a message of its own
        parse_keys(text)


def test_a_key_set_of_a_file_is_refused_at_the_start_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_text("{}")
    with pytest.raises(ConfigurationError, match=r"jwks\.json"):
        token_verifier(entry(jwks_file="jwks.json"), tmp_path, "headgate.yaml", ManualClock())
    (tmp_path / "jwks.json").write_bytes(key_set(KEY))
    verifier = token_verifier(entry(jwks_file="jwks.json"), tmp_path, "headgate.yaml", ManualClock())
    with pytest.raises(InvalidApiKey):
        verifier.authenticate("eyJ.a.b")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({}, "exactly one of"),
        ({"jwks_file": "a", "jwks_url": "https://b.example/k"}, "exactly one of"),
        ({"jwks_url": "http://b.example/k"}, "neither https nor on this machine"),
        ({"jwks_url": "ftp://127.0.0.1/k"}, "neither https nor on this machine"),
        ({"jwks_url": "http://127.0.0.1@b.example/k"}, "neither https nor on this machine"),
        ({"jwks_url": "https://b.example/k", "algorithms": []}, "lists none"),
    ],
)
def test_a_block_that_cannot_be_used_is_one_line(tmp_path: Path, more: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        token_verifier(entry(**more), tmp_path, "headgate.yaml", ManualClock())


def test_symmetric_algorithms_cannot_be_configured() -> None:
    written = {"issuer": "i", "audience": "a", "tenant_claim": "t", "algorithms": ["HS256"]}
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(written, OidcEntry)


async def test_a_key_that_is_published_later_is_found_when_a_token_names_it(provider: Provider) -> None:
    provider.published[0] = key_set(KEY, OTHER)
    provider.clock.advance(timedelta(seconds=1).total_seconds())
    provider.refuse(provider.token(OTHER))
    provider.ring.load()
    assert provider.admit(provider.token(OTHER)).tenant == "acme"
