"""Which headers an operator may let through."""

import pytest

from core.errors import ConfigurationError
from gateway.settings.passed_headers import checked_headers, passed_headers


@pytest.mark.parametrize(
    "name",
    ["Authorization", "cookie", "set-cookie", "host", "content-length", "x-forwarded-for", "x-headgate-cache",
     "transfer-encoding", "x-api-key", "bad name", "", "a:b"],
)  # fmt: skip
def test_what_belongs_to_the_connection_a_key_or_the_gateway_never_passes(name: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        checked_headers(["openai-beta", name], "f.yaml", "deployments.d.request_headers")
    assert refusal.value.key == "deployments.d.request_headers[1]"


def test_only_listed_headers_are_taken_from_a_request() -> None:
    names = frozenset(name.encode() for name in checked_headers(["OpenAI-Beta"], "f", "k"))
    sent = [(b"openai-beta", b"x=1"), (b"cookie", b"secret"), (b"x-other", b"y")]
    assert passed_headers(sent, names) == (("openai-beta", "x=1"),)
    assert passed_headers(sent, frozenset()) == ()
