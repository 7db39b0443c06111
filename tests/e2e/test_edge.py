"""The gateway at the edge: TLS, a Unix socket for the admin listener, CORS, signs of life in silent streams."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.certificates import write_certificate
from tests.e2e.conftest import ACME
from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

EDGE = """
tls: {certificate: cert.pem, key: key.pem}
cors: {origins: ["https://app.example"]}
trusted_proxies: [10.0.0.0/8]
heartbeat_s: 0.1
"""


@pytest.fixture(scope="module")
def folder(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made: Path = tmp_path_factory.mktemp("edge")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large") + EDGE
    write_configuration(made, operator.replace("127.0.0.1:8081", "unix:admin.sock"), {"acme": ACME})
    write_certificate(made)
    return made


@pytest.fixture(scope="module")
def trust(folder: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(folder / "cert.pem"))


@pytest.fixture(scope="module")
def gateway(folder: Path, trust: ssl.SSLContext) -> Iterator[RunningGateway]:
    with run_gateway(folder, scheme="https", verify=trust) as running:
        yield running


@pytest.fixture
def client(gateway: RunningGateway, trust: ssl.SSLContext, key: str) -> Iterator[httpx.Client]:
    headers = {"authorization": f"Bearer {key}"}
    with httpx.Client(base_url=gateway.base_url, headers=headers, verify=trust, trust_env=False) as made:
        yield made


def ask(text: str, **fields: object) -> dict[str, object]:
    return {"model": "large", "messages": [{"role": "user", "content": text}], **fields}


def test_a_chat_goes_over_tls_and_not_without(client: httpx.Client, gateway: RunningGateway) -> None:
    assert client.post("/chat/completions", json=ask("over tls")).status_code == 200
    with pytest.raises(httpx.TransportError):
        httpx.get(gateway.url.replace("https", "http") + "/healthz", trust_env=False)


def test_commands_reach_the_admin_listener_by_its_unix_socket(gateway: RunningGateway) -> None:
    socket = gateway.folder / "admin.sock"
    assert socket.is_socket()
    assert socket.stat().st_mode & 0o777 == 0o660
    assert '"exact"' in headgate("cache", "stats", "--json", folder=gateway.folder).stdout


def test_only_pages_of_listed_origins_may_call_from_a_browser(client: httpx.Client) -> None:
    question = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
    allowed = client.options("/chat/completions", headers={"origin": "https://app.example", **question})
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    refused = client.options("/chat/completions", headers={"origin": "https://evil.example", **question})
    assert "access-control-allow-origin" not in refused.headers
    answer = client.post("/chat/completions", json=ask("from a page"), headers={"origin": "https://app.example"})
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert "x-headgate-cost-usd" in answer.headers["access-control-expose-headers"]


@pytest.mark.parametrize(("path", "sign"), [("/chat/completions", ": keep-alive\n\n"), ("/messages", "event: ping\n")])
def test_a_silent_stream_shows_signs_of_life_between_whole_frames(
    client: httpx.Client, upstream: RunningUpstream, path: str, sign: str
) -> None:
    upstream.obey("gap=350;n=3;text=a b c")
    answer = client.post(path, json=ask(f"be slow on {path}", stream=True, max_tokens=50))
    assert answer.text.count(sign) >= 4
    for frame in answer.text.split("\n\n"):
        assert frame.startswith(("data: ", "event: ", ": keep-alive")) or not frame
