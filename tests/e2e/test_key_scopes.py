"""Keys and tokens that may do less than their tenant: models, tiers, end users, and where tokens come from."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from core.clock import SystemClock
from tests.e2e.gateway_process import REMOTE, RunningGateway, error_of, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

ACME = """
tenant: acme
deployments: [one, two]
cache: {semantic: false}
routing: {quality: 1.0}
"""
OIDC = """
oidc:
  issuer: https://login.example
  audience: headgate
  tenant_claim: org
  user_claim: sub
  jwks_file: jwks.json
  scopes: {small: {tiers: [small]}, all: {}}
"""
SIGNER = ECKey.generate_key("P-256", {"kid": "k1"})


@dataclass(frozen=True)
class Client:
    """Asks with one key."""

    gateway: RunningGateway
    key: str

    def ask(self, text: str, model: str = "auto", **fields: Any) -> httpx.Response:
        body = {"model": model, "messages": [{"role": "user", "content": text}], **fields}
        headers = {"authorization": f"Bearer {self.key}"}
        url = f"{self.gateway.base_url}/chat/completions"
        return httpx.post(url, json=body, headers=headers, timeout=30, trust_env=False)


@pytest.fixture(scope="module")
def scoped(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("scoped")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large") + OIDC
    write_configuration(folder, operator, {"acme": ACME})
    (folder / "jwks.json").write_text(json.dumps({"keys": [SIGNER.as_dict(private=False)]}))
    with run_gateway(folder) as running:
        yield running


def token(scope: str = "all", **claims: Any) -> str:
    said = {"iss": "https://login.example", "aud": "headgate", "sub": "ada", "org": "acme", "scope": scope}
    expires_at_s = int(SystemClock().now().timestamp()) + 300
    return jwt.encode({"alg": "ES256", "kid": "k1"}, said | {"exp": expires_at_s} | claims, SIGNER)


def refused(answer: httpx.Response) -> str | None:
    assert answer.status_code == 403
    error = error_of(answer)
    assert error["code"] == "permission_denied"
    param: str | None = error["param"]
    return param


def test_a_key_for_one_model_may_name_no_other(scoped: RunningGateway) -> None:
    client = Client(scoped, scoped.key("acme", "--model", "small"))
    assert client.ask("hello", "small").status_code == 200
    assert refused(client.ask("hello", "large")) == "model"


def test_a_key_for_the_small_tier_is_answered_by_it_alone(scoped: RunningGateway) -> None:
    client = Client(scoped, scoped.key("acme", "--tier", "small"))
    for model in ("auto", "small"):
        assert client.ask(f"hello {model}", model).headers["x-headgate-tier"] == "small"
    for model in ("large", "one", "two"):
        assert refused(client.ask("hello", model)) == "model"


def test_an_answer_of_a_narrow_key_is_not_served_to_a_wide_one(scoped: RunningGateway) -> None:
    narrow = Client(scoped, scoped.key("acme", "--tier", "small"))
    wide = Client(scoped, scoped.key("acme"))
    assert narrow.ask("which tier?").headers["x-headgate-tier"] == "small"
    assert narrow.ask("which tier?").headers["x-headgate-cache"] == "exact"
    answer = wide.ask("which tier?")
    assert answer.headers["x-headgate-cache"] == "miss"
    assert answer.headers["x-headgate-tier"] == "large"


def test_a_key_for_some_users_speaks_for_no_other(scoped: RunningGateway) -> None:
    client = Client(scoped, scoped.key("acme", "--user", "ada", "--user", "bob"))
    assert client.ask("hello", user="bob").status_code == 200
    for fields in ({"user": "eve"}, {}):
        assert refused(client.ask("hello", **fields)) == "user"


def test_a_token_is_as_good_as_a_key(scoped: RunningGateway) -> None:
    assert Client(scoped, token()).ask("hello from a token").status_code == 200


def test_a_token_speaks_for_its_own_user_only(scoped: RunningGateway) -> None:
    client = Client(scoped, token())
    assert client.ask("hello", user="ada").status_code == 200
    assert refused(client.ask("hello", user="eve")) == "user"


def test_the_scope_of_a_token_narrows_it(scoped: RunningGateway) -> None:
    client = Client(scoped, token("small"))
    assert client.ask("narrow hello").headers["x-headgate-tier"] == "small"
    assert refused(client.ask("hello", "large")) == "model"
    assert refused(Client(scoped, token("openid")).ask("hello")) is None


@pytest.mark.parametrize("claims", [{"exp": 1}, {"aud": "other"}, {"iss": "other"}, {"org": 7}])
def test_a_wrong_token_is_401_like_a_wrong_key(scoped: RunningGateway, claims: dict[str, Any]) -> None:
    answer = Client(scoped, token(**claims)).ask("hello")
    assert answer.status_code == 401
    assert error_of(answer)["message"] == "Invalid API key."


def test_a_tenant_that_only_the_token_knows_gets_nowhere(scoped: RunningGateway) -> None:
    assert Client(scoped, token(org="nobody")).ask("hello").status_code == 403
    assert Client(scoped, token(org="../acme")).ask("hello").status_code == 403
