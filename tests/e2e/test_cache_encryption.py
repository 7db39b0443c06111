"""A gateway that encrypts its cache: hits as ever, nothing readable on disk, and a tenant that leaves is gone."""

from collections.abc import Iterator

import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.e2e.test_cache_control import ask, told
from tests.e2e.test_chat_api import wait_until
from tests.upstream.process import RunningUpstream

SECRET = "Which colour has the boathouse door?"


@pytest.fixture(scope="module")
def gateway(upstream: RunningUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder = tmp_path_factory.mktemp("encrypted")
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    operator += "cache: {encrypt: true, keys: apart/keys, entries_per_tenant: 2}\n"
    write_configuration(folder, operator, {"acme": "tenant: acme\n", "other": "tenant: other\n"})
    with run_gateway(folder) as running:
        yield running


def test_a_tenant_that_leaves_takes_its_key_its_entries_and_its_evidence(gateway: RunningGateway) -> None:
    keys = {tenant: gateway.key(tenant) for tenant in ("acme", "other")}
    for key in keys.values():
        assert [ask(gateway, key, SECRET) for _ in range(2)] == ["miss", "exact"]
    folder = gateway.folder / "apart" / "keys"
    wait_until(lambda: len(list(folder.glob("*.key"))) == 2)  # a key is made with the first entry that is written
    refused = headgate("cache", "forget-tenant", "acme", "--admin-url", gateway.admin_url, folder=gateway.folder,
                       check=False)  # fmt: skip
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    done = told(gateway, "forget-tenant", "acme", "--yes")
    assert done == {"tenant": "acme", "entries": 1, "key_shredded": True, "has_policy": True}
    assert len(list(folder.glob("*.key"))) == 1
    assert [one["tenant"] for one in told(gateway, "report")["tenants"]] == ["other"]
    assert ask(gateway, keys["acme"], SECRET) == "miss"
    assert ask(gateway, keys["other"], SECRET) == "exact"
    assert told(gateway, "forget-tenant", "nobody", "--yes")["entries"] == 0


def test_nothing_that_was_asked_or_answered_is_readable_on_disk(gateway: RunningGateway) -> None:
    ask(gateway, gateway.key("acme"), SECRET)
    kept = b"".join(file.read_bytes() for file in (gateway.folder / "var").glob("headgate-cache*"))
    assert kept
    assert b"boathouse" not in kept


def test_a_tenant_keeps_no_more_entries_than_the_operator_says(gateway: RunningGateway) -> None:
    key = gateway.key("other")
    for text in ("Why is the sky blue?", "What do moles eat?", "How tall are pines?"):
        ask(gateway, key, text)
    entries = {one["tenant"]: one["entries"] for one in told(gateway, "stats")["tenants"]}
    assert entries["other"] == 2
    assert told(gateway, "stats")["index"].startswith("cpu: ")
