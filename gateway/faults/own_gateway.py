"""A gateway of our own in front of the scripted upstream, started for one run in a folder of its own, and its books."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx

from core.errors import HeadgateError
from gateway.faults.cases import TARGETS, Target
from gateway.faults.verdicts import Books

START_TIMEOUT_S = 60.0
BOOKS_TIMEOUT_S = 5.0
POLL_S = 0.03
OPERATOR = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
router: {pair: general}
rescue: {retry_ratio: 0, hedge_ratio: 0}
"""
TENANT = """
budgets: [{window: month, limit_usd: "1000"}]
fallback: false
cache: {semantic: false}
"""
SLA = "{ttft_ms: 1300, idle_ms: 1100, total_ms: 2500}"
PRICE = "{input_usd_per_m: 1, output_usd_per_m: 2}"


class NotStarted(HeadgateError):
    """The gateway of a run did not become ready."""

    code = "not_started"


@dataclass(slots=True)
class Lane:
    """A tenant of the running gateway with deployments over one upstream, so that several cases run at a time.

    `mark` says where its books stand before a case, `books` what the case left in them.
    """

    number: int
    url: str
    key: str
    _admin: httpx.AsyncClient
    _last_row: int = 0
    _spent_nano_usd: int = 0
    _faults_before: int = 0

    @property
    def models(self) -> Mapping[Target, str]:
        """Return what a client asks for to reach each deployment: the tiers' names."""
        return {target: _tier_of(target, self.number) for target in TARGETS}

    async def mark(self, request_id: str, target: Target) -> None:
        """Remember where the books stand, once the request before is in them."""
        await self._until(lambda: self._has(request_id))
        rows = await self._get("/admin/requests", tenant=self._tenant, limit=1)
        self._last_row = rows["requests"][0]["id"]
        await self._until(self._is_settled)
        self._spent_nano_usd, _ = await self._money()
        self._faults_before = await self._faults(target)

    async def books(self, target: Target) -> Books:
        """Return what the request since `mark` left in the books, once it is settled."""
        await self._until(self._rows)
        rows = await self._rows()
        await self._until(self._is_settled)
        columns, attempts = (rows[-1]["columns"], rows[-1]["attempts"]) if rows else ({}, [])
        spent_nano_usd, held_nano_usd = await self._money()
        last = attempts[-1] if attempts else {}
        return Books(
            status=columns.get("status", 0),
            cost_nano_usd=columns.get("cost_nano_usd", 0),
            charged_nano_usd=spent_nano_usd - self._spent_nano_usd,
            held_nano_usd=held_nano_usd,
            usage_source=last.get("usage_source", "none"),
            other_model=last.get("other_model"),
            faults=max(0, await self._faults(target) - self._faults_before),
        )

    @property
    def _tenant(self) -> str:
        return f"faults-{self.number}"

    async def _has(self, request_id: str) -> bool:
        return (await self._admin.get(f"/admin/requests/{request_id}")).is_success

    async def _rows(self) -> list[dict[str, Any]]:
        page = await self._get("/admin/requests", tenant=self._tenant, after=self._last_row, limit=10)
        rows: list[dict[str, Any]] = page["requests"]
        return rows

    async def _is_settled(self) -> bool:
        return (await self._money())[1] == 0

    async def _until(self, holds: Callable[[], Awaitable[object]]) -> None:
        """Wait until something holds, a few seconds at most; what then fails to fit is told as a finding."""
        for _ in range(int(BOOKS_TIMEOUT_S / POLL_S)):
            if await holds():
                return
            await asyncio.sleep(POLL_S)

    async def _money(self) -> tuple[int, int]:
        """Return what is spent and what is held, in nano-USD."""
        line = (await self._get(f"/admin/budgets/{self._tenant}"))["budgets"][0]
        return int(Decimal(line["spent_usd"]) * 10**9), int(Decimal(line["reserved_usd"]) * 10**9)

    async def _faults(self, target: Target) -> int:
        listed = (await self._get("/admin/deployments"))["deployments"]
        name = _deployment_of(target, self.number)
        return int(next(one["faults_in_a_row"] for one in listed if one["name"] == name))

    async def _get(self, path: str, **query: int | str) -> dict[str, Any]:
        answer: dict[str, Any] = (await self._admin.get(path, params=query)).raise_for_status().json()
        return answer


@asynccontextmanager
async def own_gateway(upstream_urls: Sequence[str]) -> AsyncIterator[list[Lane]]:
    """Run `headgate serve` on free ports until the block ends, with one lane for each upstream.

    Raises:
        NotStarted: it did not become ready within a minute; the message holds the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="headgate-faults-") as name:
        folder = Path(name)
        _write_configuration(folder, upstream_urls)
        port, admin_port = _free_port(), _free_port()
        with (folder / "gateway.log").open("wb") as log:
            arguments = ["serve", "--port", str(port), "--admin-port", str(admin_port)]
            process = _headgate(folder, arguments, stdout=log, stderr=log)
            try:
                url, admin_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"
                await _ready(url, process, folder)
                headers = {"authorization": f"Bearer {(folder / 'var' / 'admin.key').read_text().strip()}"}
                async with httpx.AsyncClient(base_url=admin_url, headers=headers, trust_env=False) as admin:
                    keys = [await _new_key(admin, number) for number in range(len(upstream_urls))]
                    yield [Lane(number, url, key, admin) for number, key in enumerate(keys)]
            finally:
                await asyncio.to_thread(_stop, process)


async def _new_key(admin: httpx.AsyncClient, lane: int) -> str:
    answer = (await admin.post("/admin/keys", json={"tenant": f"faults-{lane}"})).raise_for_status()
    return str(answer.json()["key"])


def _deployment_of(target: Target, lane: int) -> str:
    return f"{target}-{lane}"


def _tier_of(target: Target, lane: int) -> str:
    return f"tier-{target}-{lane}"


def _write_configuration(folder: Path, upstream_urls: Sequence[str]) -> None:
    """Write the operator's file and one tenant per lane; every deployment is a tier of its own."""
    refused = f"http://127.0.0.1:{_free_port()}"
    (folder / "tenants").mkdir()
    tiers, deployments = "tiers:\n", "deployments:\n"
    for lane, url in enumerate(upstream_urls):
        urls = {"scripted": url, "strict": url, "tls": url.replace("http://", "https://"), "refused": refused}
        names = [_deployment_of(target, lane) for target in TARGETS]
        promises = ", ".join(f"{_tier_of(target, lane)}: {SLA}" for target in TARGETS)
        tenant = f"tenant: faults-{lane}\ndeployments: [{', '.join(names)}]\nsla: {{{promises}}}\n{TENANT}"
        (folder / "tenants" / f"faults-{lane}.yaml").write_text(tenant)
        for target, name in zip(TARGETS, names, strict=True):
            check = ", on_other_model: error" if target == "strict" else ""
            tiers += f"  {_tier_of(target, lane)}: [{name}]\n"
            where = f"backend: remote, base_url: '{urls[target]}/v1', model: scripted"
            deployments += f"  {name}: {{{where}, price: {PRICE}{check}}}\n"
    (folder / "headgate.yaml").write_text(OPERATOR + tiers + deployments)


def _headgate(folder: Path, arguments: list[str], **streams: Any) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "HEADGATE_CONFIG": "headgate.yaml", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "gateway", *arguments]
    return subprocess.Popen(command, cwd=folder, env=environment, start_new_session=True, **streams)  # noqa: S603 - our own


async def _ready(url: str, process: subprocess.Popen[bytes], folder: Path) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        for _ in range(int(START_TIMEOUT_S / 0.05)):
            if process.poll() is not None:
                break
            try:
                if (await http.get(f"{url}/readyz")).status_code == httpx.codes.OK:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.05)
    tail = (folder / "gateway.log").read_text(errors="replace")[-1_000:]
    raise NotStarted(f"the gateway of this run did not become ready:\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
