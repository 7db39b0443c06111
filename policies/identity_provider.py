"""The identity provider as the operator's file names it; reading it loads nothing that checks signatures."""

from typing import Annotated, Literal

from msgspec import Struct

from policies.schema import says

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"]


class ScopeEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What one scope of a token allows; an empty list means whatever the tenant may."""

    models: Annotated[list[str], says("Names that may be sent as `model`.")] = []
    tiers: Annotated[list[str], says("Tiers that may answer.")] = []


class OidcEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """The identity provider whose tokens are accepted beside keys."""

    issuer: Annotated[str, says("The `iss` of its tokens.")]
    audience: Annotated[str, says("What their `aud` must hold.")]
    tenant_claim: Annotated[str, says("The claim that holds the tenant, or a name in `tenants`.")]
    jwks_file: Annotated[str | None, says("File of its public keys (a JWK set), read again when it changes.")] = None
    jwks_url: Annotated[str | None, says("URL of its public keys: https, or on this machine.")] = None
    user_claim: Annotated[str | None, says("The claim that holds the end user.")] = None
    tenants: Annotated[dict[str, str], says("Values of the tenant claim to tenants; then no others count.")] = {}
    scopes: Annotated[
        dict[str, ScopeEntry], says("Scopes that a token needs one of; the first listed that it carries counts.")
    ] = {}
    algorithms: Annotated[tuple[Algorithm, ...], says("Signature algorithms that are accepted.")] = ("RS256", "ES256")
