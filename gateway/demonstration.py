"""Six requests that show what the gateway does: two tiers, three cache outcomes, one refusal."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import httpx
import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from core.errors import ConfigurationError
from policies.keys import create_key

if TYPE_CHECKING:
    from gateway.running import Gateway

TIMEOUT_S = 60.0
READY_TIMEOUT_S = 120.0
MAX_TOKENS = 32
KEY_LIFE = timedelta(hours=24)
TENANTS = ("demo", "demo-tiny")
"""One with a budget, and one without enough of it."""


@dataclass(frozen=True, slots=True)
class Step:
    """One request of the demonstration as a reader sees it."""

    shows: str
    request: str
    answer: str
    status: int
    tier: str
    cache: str
    cost_usd: str
    ttft_ms: float
    reason: str
    as_expected: bool


@dataclass(frozen=True, slots=True)
class _Scene:
    """What is asked, how, and what must be seen; controls keep a second run as good as the first."""

    shows: str
    question: str
    cache_control: str | None
    expected: Callable[["Step"], bool]
    poor: bool = False


_SCENES = (
    _Scene(
        "an easy question",
        "Sort these numbers: 7 3 9",
        "refresh",
        lambda step: step.tier == "small" and step.answer == "3 7 9",
    ),
    _Scene(
        "a hard question",
        "What is 48 plus 37?",
        "refresh",
        lambda step: step.tier == "large" and step.answer == "85",
    ),
    _Scene("the same again", "Sort these numbers: 7 3 9", None, lambda step: step.cache == "exact"),
    _Scene("a paraphrase", "Sort the numbers 7 3 9, please", None, lambda step: step.cache == "semantic"),
    _Scene("another number", "Sort these numbers: 7 3 8", "no-store", lambda step: step.cache == "miss"),
    _Scene("no budget left", "What is 48 plus 37?", "bypass", lambda step: step.status == 429, poor=True),
)


async def show(gateway: "Gateway", url: str) -> None:
    """Wait until every tier answers, demonstrate, and print a command that works when pasted."""
    console = Console()
    with console.status("starting the tiers"):
        await gateway.wait_ready(READY_TIMEOUT_S)
    key, poor_key = demonstration_keys(gateway)
    steps = await demonstrate(url, key, poor_key)
    print_table(steps)
    body = '{"model": "auto", "messages": [{"role": "user", "content": "What is 27 plus 45?"}]}'
    console.print("\nTry it (Ctrl-C stops the gateway):\n", style="bold")
    console.print(
        f"curl -s {url}/v1/chat/completions -H 'Authorization: Bearer {key}' "
        f"-H 'Content-Type: application/json' -d '{body}'\n",
        soft_wrap=True,
        markup=False,
        highlight=False,
    )


def demonstration_keys(gateway: "Gateway") -> tuple[str, str]:
    """Create a day's keys for the two demonstration tenants.

    Raises:
        ConfigurationError: one of them has no policy.
    """
    ground, keys = gateway.ground, []
    for tenant in TENANTS:
        if ground.policies().get(tenant) is None:
            mend = "run the demonstration with the example policies"
            raise ConfigurationError("policies", tenant, "the demonstration's tenant has no policy", mend)
        text, record = create_key(tenant, ground.pepper, ground.clock, expires_at=ground.clock.now() + KEY_LIFE)
        gateway.stores.keys.put(record)
        keys.append(text)
    return keys[0], keys[1]


async def demonstrate(url: str, key: str, poor_key: str) -> list[Step]:
    """Send the scenes in order and return what came back."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False) as client:
        return [await _play(client, scene, poor_key if scene.poor else key) for scene in _SCENES]


def print_table(steps: list[Step]) -> None:
    """Print the steps as a table."""
    table = Table(
        title="headgate demo (µUSD: cost; TTFT in ms)", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    table.add_column("request")
    for column in ("answer", "tier", "cache", "µUSD", "TTFT", "reason", ""):
        table.add_column(column, justify="right" if column in ("µUSD", "TTFT") else "left", no_wrap=True)
    for step in steps:
        answered = step.status == httpx.codes.OK
        table.add_row(
            step.request,
            step.answer if answered else str(step.status),
            step.tier,
            step.cache,
            f"{float(step.cost_usd) * 1e6:.2f}",
            f"{step.ttft_ms:.1f}",
            step.reason if answered else step.answer,
            "[green]✓[/]" if step.as_expected else "[red]✗[/]",
        )
    Console().print(table)


async def _play(client: httpx.AsyncClient, scene: _Scene, key: str) -> Step:
    headers = {"authorization": f"Bearer {key}"}
    if scene.cache_control is not None:
        headers["x-headgate-cache"] = scene.cache_control
    body = {
        "model": "auto",
        "messages": [{"role": "user", "content": scene.question}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": MAX_TOKENS,
    }
    started_s = time.perf_counter()
    async with client.stream("POST", "/v1/chat/completions", headers=headers, json=body) as response:
        first_s = None
        lines = []
        async for line in response.aiter_lines():
            first_s = first_s or time.perf_counter()
            lines.append(line)
    answer, cost_usd = _read(lines) if response.status_code == httpx.codes.OK else (_error_code(lines), "0")
    step = Step(
        shows=scene.shows,
        request=scene.question,
        answer=answer,
        status=response.status_code,
        tier=response.headers.get("x-headgate-tier", "-"),
        cache=response.headers.get("x-headgate-cache", "-"),
        cost_usd=cost_usd,
        ttft_ms=((first_s or time.perf_counter()) - started_s) * 1000,
        reason=response.headers.get("x-headgate-reason", "-"),
        as_expected=False,
    )
    return replace(step, as_expected=scene.expected(step))


def _read(lines: list[str]) -> tuple[str, str]:
    """Return the streamed text and the cost told in the usage chunk."""
    text, cost_usd = "", "0"
    for line in lines:
        data = line.removeprefix("data: ")
        if data == line or data == "[DONE]":
            continue
        chunk = msgspec.json.decode(data)
        for choice in chunk.get("choices", []):
            text += choice["delta"].get("content") or ""
        cost_usd = chunk.get("headgate", {}).get("cost_usd", cost_usd)
    return text.strip(), cost_usd


def _error_code(lines: list[str]) -> str:
    return str(msgspec.json.decode("".join(lines))["error"]["code"])
