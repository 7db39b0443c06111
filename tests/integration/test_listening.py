"""Listeners on real sockets: certificates that change, Unix sockets that are left over, files that cannot be used."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest
from litestar.types import Receive, Scope, Send

from core.errors import ConfigurationError
from gateway.serving import listener
from gateway.settings.listening import Address, CorsEntry, TlsEntry, TlsFiles, bound_socket, parse_address, parse_edge
from tests.certificates import write_certificate


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve nobody."""


async def shown(port: int) -> bytes | None:
    """Return the certificate that a listener shows."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    certificate: bytes | None = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    await writer.wait_closed()
    return certificate


async def test_a_changed_certificate_is_shown_and_a_broken_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = TlsFiles(*write_certificate(tmp_path))
    with bound_socket(Address("127.0.0.1", 0)) as bound:
        server = listener(nothing, files)
        serving = asyncio.create_task(server.serve(sockets=[bound]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        port = bound.getsockname()[1]
        first = await shown(port)
        write_certificate(tmp_path, "renewed")
        server.renew_certificate()
        second = await shown(port)
        files.key.write_text("no key")
        server.renew_certificate()
        third = await shown(port)
        server.should_exit = True
        await serving
    assert first != second == third
    assert "the certificate was not renewed" in caplog.text


def test_a_socket_that_nobody_answers_is_replaced_and_removed_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "g.sock"
    with socket.socket(socket.AF_UNIX) as left_over:
        left_over.bind(str(path))
    with bound_socket(Address("", 0, path)) as bound:
        assert bound.getsockname() == str(path)
        with pytest.raises(OSError, match="in use"), bound_socket(Address("", 0, path)):
            pass
        assert path.is_socket()
    assert not path.exists()


@pytest.mark.parametrize("wrong", ["cert", "key", "pair"])
def test_a_certificate_that_cannot_be_used_is_refused_in_one_line(tmp_path: Path, wrong: str) -> None:
    write_certificate(tmp_path)
    if wrong == "pair":
        apart = tmp_path / "apart"
        apart.mkdir()
        (tmp_path / "key.pem").write_bytes(write_certificate(apart)[1].read_bytes())
    else:
        (tmp_path / f"{wrong}.pem").unlink()
    with pytest.raises(ConfigurationError) as refusal:
        parse_address("127.0.0.1:1", "f.yaml", "admin.listen", tmp_path, TlsEntry("cert.pem", "key.pem"))
    assert refusal.value.key == "admin.tls"
    assert "\n" not in refusal.value.message


@pytest.mark.parametrize("value", ["", "8080", "h:", "h:99999", "unix:", "unix:" + "x" * 200])
def test_an_address_that_cannot_be_used_is_refused(tmp_path: Path, value: str) -> None:
    with pytest.raises(ConfigurationError, match="listen"):
        parse_address(value, "f.yaml", "listen", tmp_path)


@pytest.mark.parametrize(
    ("proxies", "origins", "key"),
    [(["10.0.0.1/8"], [], "trusted_proxies[0]"), (["unix", "x"], [], "trusted_proxies[1]"),
     ([], ["app.example"], "cors.origins[0]"), ([], ["*", "https://app.example/path"], "cors.origins[1]")],
)  # fmt: skip
def test_a_proxy_or_an_origin_that_cannot_be_used_is_refused(proxies: list[str], origins: list[str], key: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_edge(proxies, CorsEntry(origins), "f.yaml")
    assert refusal.value.key == key
