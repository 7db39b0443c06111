"""The run of `benchmarks.router_control` through a real gateway: a share over two shifts, then budgets of a minute."""

import asyncio
import random
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

from benchmarks.answering_upstream import running_upstream
from tests.e2e.gateway_process import REMOTE, RunningGateway, run_gateway, write_configuration

AT_ONCE = 8
REQUESTS, SHIFTS, EASY_SHARES = 6_000, (2_000, 4_000), (0.8, 0.35, 0.65)
SHARE, PER_S, MINUTES = 0.4, 25.0, 3
LIMIT_NANO_USD = 90_000_000
"""A minute's budget: all small is 21 of it, all large 210, so two requests in five can be large."""
TENANTS = {
    "share": f"tenant: share\ncache: {{enabled: false}}\nrouting: {{max_large_share: {SHARE}}}\n",
    "pace": (
        "tenant: pace\ncache: {enabled: false}\nrouting: {quality: 0.99}\n"
        f'budgets: [{{window: minute, limit_usd: "{LIMIT_NANO_USD / 10**9}"}}]\n'
    ),
}
EASY = ("What is the capital of the {n}. country in the list?", "Say hello to guest {n}.", "Spell the number {n}.")
HARD = (
    "Prove that the sum of the first {n} odd numbers is a perfect square, and generalise the argument to cubes.",
    "Given the integral of x^{n} exp(-x) over the positive reals, derive a recurrence and explain why it converges.",
    "A statute of {n} is amended twice. Which version governs a contract signed between the amendments, and why?",
)


def question(n: int, dice: random.Random) -> str:
    """Return the n-th question of a stream whose mix shifts twice."""
    is_easy = dice.random() < EASY_SHARES[sum(n >= shift for shift in SHIFTS)]
    return dice.choice(EASY if is_easy else HARD).format(n=n)


class Client:
    """Asks as one tenant and remembers status and tier of each answer in the order of asking."""

    def __init__(self, gateway: RunningGateway, tenant: str) -> None:
        limits = httpx.Limits(max_connections=AT_ONCE * 4)
        headers = {"authorization": f"Bearer {gateway.key(tenant)}"}
        self._http = httpx.AsyncClient(
            base_url=gateway.base_url, headers=headers, timeout=60, trust_env=False, limits=limits
        )
        self.answers: dict[int, tuple[int, str]] = {}

    async def ask(self, n: int, text: str) -> None:
        """Ask one question."""
        body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
        answer = await self._http.post("/chat/completions", json=body)
        self.answers[n] = answer.status_code, answer.headers.get("x-headgate-tier", "")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()


async def stream_of_shares(gateway: RunningGateway) -> list[float]:
    """Ask the whole stream, `AT_ONCE` at a time; 1.0 for each large answer."""
    client, dice = Client(gateway, "share"), random.Random(1)
    texts = iter([(n, question(n, dice)) for n in range(REQUESTS)])

    async def work() -> None:
        for n, text in texts:
            await client.ask(n, text)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    await client.close()
    return [float(client.answers[n][1] == "large") for n in range(REQUESTS)]


async def spend_minutes(gateway: RunningGateway) -> dict[int, tuple[int, str]]:
    """Ask at a steady rate for some minutes."""
    client, dice, asked = Client(gateway, "pace"), random.Random(2), []
    for n in range(int(60 * MINUTES * PER_S)):
        asked.append(asyncio.create_task(client.ask(n, question(n, dice))))
        await asyncio.sleep(dice.expovariate(PER_S))
    await asyncio.gather(*asked)
    await client.close()
    return client.answers


def spent_by_minute(gateway: RunningGateway, least: int) -> dict[int, int]:
    """Return what the tenant `pace` spent in each minute that it asked through, from the request log, in nano-USD."""
    spent: dict[int, int] = defaultdict(int)
    for row in gateway.request_rows(least):
        if row["tenant"] == "pace":
            spent[row["received_at_ms"] // 60_000] += row["cost_nano_usd"]
    whole = sorted(spent)[1:-1]
    return {minute: spent[minute] for minute in whole}


def serve(
    after_shifts: Callable[[Sequence[float]], list[float]],
    errors_of: Callable[[Sequence[float], float], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Run both parts and return their rows."""
    with tempfile.TemporaryDirectory() as folder, running_upstream() as base_url:
        write_configuration(Path(folder), REMOTE.format(base_url=base_url, small="s", large="l"), TENANTS)
        with run_gateway(Path(folder)) as gateway:
            large = asyncio.run(stream_of_shares(gateway))
            answers = asyncio.run(spend_minutes(gateway))
            minutes = spent_by_minute(gateway, REQUESTS + len(answers))
    refused = sum(status != httpx.codes.OK for status, _ in answers.values())
    ratios = [spent / LIMIT_NANO_USD for spent in minutes.values()]
    return [
        {"case": f"share {SHARE}, through the gateway", **errors_of(after_shifts(large), SHARE)},
        {"case": f"spent of {len(ratios)} budgets of a minute, through the gateway", **errors_of(ratios, 1.0)}
        | {"refused": refused, "requests": len(answers)},
    ]
