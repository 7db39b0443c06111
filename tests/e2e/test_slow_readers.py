"""Clients that do not read their long answers cost little memory and slow nobody else."""

import asyncio
import json
import secrets
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai

from tests.e2e.gateway_process import RunningGateway
from tests.e2e.test_cache_control import ask
from tests.e2e.test_chat_api import wait_until
from tests.upstream.process import RunningUpstream

READERS = 4
LONG = "n=100000"
"""Some 16 MB, far more than the kernel keeps of a connection that nobody reads: 7 MB over both hops."""


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


async def not_reading(gateway: RunningGateway, key: str, n: int) -> asyncio.StreamWriter:
    """Ask for an answer, wait for its first bytes, and read no more."""
    url = urlsplit(gateway.base_url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (url.hostname, url.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=1024)
    body = json.dumps({"model": "large", "stream": True, "messages": [{"role": "user", "content": f"long {n}"}]})
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}"
    )
    writer.write(f"{head}\r\n\r\n{body}".encode())
    assert b"200" in await reader.readline()
    return writer


async def long_answers(upstream: RunningUpstream, moments: int = 2) -> list[int]:
    """Return what was sent of each long answer, once none has grown for some looks."""
    seen: list[list[int]] = []
    while len(seen) < moments or any(sent != seen[-1] for sent in seen[-moments:]):
        await asyncio.sleep(0.2)
        now = await asyncio.to_thread(upstream.seen, 0.0)
        seen.append([one["bytes_sent"] for one in now if one["script"] == LONG and one["state"] == "open"])
    return seen[-1]


def encoder_has_loaded(gateway: RunningGateway, key: str) -> bool:
    """Ask two wordings of a new question; the second is a semantic hit once the encoder has loaded."""
    number = secrets.randbelow(1_000_000)
    ask(gateway, key, f"What is the capital of island {number}?")
    return ask(gateway, key, f"Which city is the capital of island {number}?") == "semantic"


async def test_clients_that_do_not_read_hold_little_and_slow_nobody(
    gateway: RunningGateway, upstream: RunningUpstream, key: str
) -> None:
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key=key, max_retries=0) as client:

        async def read(text: str) -> int:
            messages: Any = [{"role": "user", "content": text}]
            stream = await client.chat.completions.create(model="large", messages=messages, stream=True)
            return len([chunk async for chunk in stream if chunk.choices])

        other = gateway.key("other")
        await asyncio.to_thread(wait_until, lambda: encoder_has_loaded(gateway, other), 60.0)  # its memory is its own
        upstream.obey("n=30;gap=5")
        alone = await read("alone")
        before_bytes = rss_bytes(gateway.process.pid)
        upstream.obey(LONG)
        writers = await asyncio.gather(*(not_reading(gateway, key, n) for n in range(READERS)))
        try:
            assert len(await long_answers(upstream)) == READERS, "the upstream is held back"
            upstream.obey("n=30;gap=5")
            assert await asyncio.gather(*(read(f"beside {n}") for n in range(5))) == [alone] * 5
            assert len(await long_answers(upstream)) == READERS
            assert rss_bytes(gateway.process.pid) - before_bytes < READERS * 5 * 2**20
        finally:
            for writer in writers:
                writer.transport.abort()
