"""`headgate cache ...` against a real gateway: what it tells, what it removes, and what comes back."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.gateway_process import REMOTE, RunningGateway, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream, run_upstream

QUESTIONS = ("What is the capital of France?", "How do I boil an egg?", "Why do owls hunt at night?")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    with run_upstream() as upstream:
        yield from _served(upstream, tmp_path_factory.mktemp("cache"))


def _served(upstream: RunningUpstream, folder: Path) -> Iterator[RunningGateway]:
    operator = REMOTE.format(base_url=upstream.base_url, small="scripted", large="scripted-large")
    write_configuration(folder, operator, {"acme": "tenant: acme\n", "other": "tenant: other\n"})
    with run_gateway(folder) as running:
        yield running


@pytest.fixture(scope="module")
def keys(gateway: RunningGateway) -> dict[str, str]:
    return {tenant: gateway.key(tenant) for tenant in ("acme", "other")}


@pytest.fixture(autouse=True)
def empty(gateway: RunningGateway) -> None:
    told(gateway, "flush", "--all-tenants")


def told(gateway: RunningGateway, *arguments: str) -> dict[str, Any]:
    done = headgate("cache", *arguments, "--json", "--admin-url", gateway.admin_url, folder=gateway.folder)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def ask(gateway: RunningGateway, key: str, text: str, model: str = "large", **wishes: str) -> str:
    body = {"model": model, "messages": [{"role": "user", "content": text}]}
    headers = {"authorization": f"Bearer {key}"} | {f"x-headgate-{name}": value for name, value in wishes.items()}
    answer = httpx.post(f"{gateway.base_url}/chat/completions", json=body, headers=headers, timeout=30, trust_env=False)
    return str(answer.raise_for_status().headers["x-headgate-cache"])


def test_stats_and_report_tell_hits_entries_and_the_bound(gateway: RunningGateway, keys: dict[str, str]) -> None:
    for text in (*QUESTIONS, QUESTIONS[0]):
        ask(gateway, keys["acme"], text)
    stats = told(gateway, "stats")
    assert stats["exact"] >= 1
    assert {"tenant": "acme", "entries": 3} in stats["tenants"]
    (row,) = told(gateway, "report", "--tenant", "acme")["tenants"]
    assert row["exact"] >= 1
    assert 0 < row["hit_ratio"] < 1
    assert (row["source"], row["max_false_hit_rate"]) == ("shipped", 0.005)
    assert 0 < row["false_hit_bound"] <= 0.005
    table = headgate("cache", "report", "--admin-url", gateway.admin_url, folder=gateway.folder).stdout
    assert "acme" in table


def test_a_dry_run_counts_and_removes_nothing(gateway: RunningGateway, keys: dict[str, str]) -> None:
    ask(gateway, keys["acme"], QUESTIONS[0])
    for arguments in (("flush", "--tenant", "acme"), ("invalidate", "--tenant", "acme", "--model", "large")):
        assert told(gateway, *arguments, "--dry-run")["count"] == 1
    assert ask(gateway, keys["acme"], QUESTIONS[0]) == "exact"


def test_invalidation_by_model_age_and_entry_removes_only_what_is_meant(
    gateway: RunningGateway, keys: dict[str, str]
) -> None:
    ask(gateway, keys["acme"], QUESTIONS[0], "large")
    ask(gateway, keys["acme"], QUESTIONS[1], "small")
    ask(gateway, keys["other"], QUESTIONS[0], "large")
    assert told(gateway, "invalidate", "--tenant", "acme", "--older-than", "3600")["count"] == 0
    removed = told(gateway, "invalidate", "--tenant", "acme", "--model", "large")
    assert removed["count"] == 1
    assert ask(gateway, keys["acme"], QUESTIONS[1], "small") == "exact"
    assert ask(gateway, keys["other"], QUESTIONS[0], "large") == "exact"
    assert ask(gateway, keys["acme"], QUESTIONS[0], "large") == "miss"
    (entry_id,) = told(gateway, "invalidate", "--tenant", "acme", "--model", "large", "--dry-run")["entry_ids"]
    assert told(gateway, "invalidate", "--tenant", "other", "--entry", entry_id)["count"] == 0
    assert told(gateway, "invalidate", "--tenant", "acme", "--entry", entry_id)["count"] == 1
    assert ask(gateway, keys["acme"], QUESTIONS[0], "large") == "miss"


def test_a_tag_names_what_is_invalidated_also_after_export_and_import(
    gateway: RunningGateway, keys: dict[str, str], tmp_path: Path
) -> None:
    ask(gateway, keys["acme"], QUESTIONS[0], **{"cache-tags": "handbook,v1"})
    ask(gateway, keys["acme"], QUESTIONS[1], **{"cache-tags": "faq"})
    ask(gateway, keys["other"], QUESTIONS[0], **{"cache-tags": "handbook"})
    file = tmp_path / "tagged.jsonl"
    told(gateway, "export", "--tenant", "acme", "--out", str(file))
    told(gateway, "flush", "--tenant", "acme")
    told(gateway, "import", "--tenant", "acme", "--in", str(file))
    by_tag = ("invalidate", "--tenant", "acme", "--tag", "handbook")
    assert told(gateway, *by_tag, "--dry-run")["count"] == 1
    assert told(gateway, *by_tag)["count"] == 1
    assert ask(gateway, keys["acme"], QUESTIONS[1]) == "exact"
    assert ask(gateway, keys["other"], QUESTIONS[0]) == "exact"
    assert ask(gateway, keys["acme"], QUESTIONS[0]) == "miss"


def test_a_least_score_in_the_header_only_tightens(gateway: RunningGateway, keys: dict[str, str]) -> None:
    ask(gateway, keys["acme"], QUESTIONS[0])
    assert ask(gateway, keys["acme"], "Which city is the capital of France?", cache="min-score=0") == "semantic"
    assert ask(gateway, keys["acme"], "Which city is the capital of France?", cache="min-score=1,no-store") == "miss"
    assert ask(gateway, keys["acme"], QUESTIONS[0], cache="min-score=1") == "exact"


def test_what_is_exported_can_be_imported_after_a_flush(
    gateway: RunningGateway, keys: dict[str, str], tmp_path: Path
) -> None:
    for text in QUESTIONS:
        ask(gateway, keys["acme"], text)
    file = tmp_path / "acme.jsonl"
    assert told(gateway, "export", "--tenant", "acme", "--out", str(file))["exported"] == 3
    assert file.stat().st_mode & 0o077 == 0
    assert told(gateway, "flush", "--tenant", "acme")["count"] == 3
    assert told(gateway, "import", "--tenant", "acme", "--in", str(file)) == {"kept": 3, "left_out": 0}
    assert ask(gateway, keys["acme"], QUESTIONS[0]) == "exact"
    assert ask(gateway, keys["acme"], "Which city is the capital of France?") == "semantic"
    refused = headgate("cache", "import", "--tenant", "other", "--in", str(file), "--admin-url", gateway.admin_url,
                       folder=gateway.folder, check=False)  # fmt: skip
    assert refused.returncode == 1
    assert "belongs to another tenant" in refused.stderr


def test_feedback_removes_a_wrong_hit(gateway: RunningGateway, keys: dict[str, str]) -> None:
    ask(gateway, keys["acme"], QUESTIONS[0])
    (entry_id,) = told(gateway, "invalidate", "--tenant", "acme", "--model", "large", "--dry-run")["entry_ids"]
    key = (gateway.folder / "var" / "admin.key").read_text().strip()
    with httpx.Client(
        base_url=gateway.admin_url, headers={"authorization": f"Bearer {key}"}, trust_env=False
    ) as client:
        wrong = {"tenant": "acme", "entry_id": entry_id, "wrong": True}
        assert client.post("/admin/cache/feedback", json=wrong).json() == {"known": True}
        assert client.post("/admin/cache/feedback", json=wrong).json() == {"known": False}
        assert client.post("/admin/cache/feedback", json={"tenant": "acme", "wrong": True}).status_code == 400
        assert client.post("/admin/cache/invalidate", json={"tenant": "acme"}).status_code == 400
        ask(gateway, keys["acme"], "Is it 7 or 9 miles to town?")
        ask(gateway, keys["acme"], "Is it 7 or 8 miles to town?")
        near = client.get("/admin/cache/near-hits", params={"tenant": "acme"}).json()["near"]
        assert near[0]["veto"] == "number"
    assert ask(gateway, keys["acme"], QUESTIONS[0]) == "miss"


@pytest.mark.parametrize(
    "arguments", [("invalidate", "--tenant", "acme"), ("import", "--tenant", "acme", "--in", "no")]
)
def test_wrong_use_is_one_line_and_code_2(gateway: RunningGateway, arguments: tuple[str, ...]) -> None:
    done = headgate("cache", *arguments, "--admin-url", gateway.admin_url, folder=gateway.folder, check=False)
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
