"""Load for the overhead benchmark: wrk with a body of its own for each request, and one connection's streams."""

import asyncio
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass, field

import msgspec

WORDS = "benchmark " * 40
MARK = "@NUMBER@"
SCRIPT = """
local head = %(head)s
local tail = %(tail)s
local count = 0
math.randomseed(%(seed)d)
local base = math.random(1, 1e9)
wrk.method = "POST"
%(headers)s
function request()
  count = count + 1
  return wrk.format(nil, nil, nil, head .. base .. "-" .. count .. tail)
end
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%.1f %%.1f\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout, latency:percentile(50), latency:percentile(99)))
end
"""
RESULT = re.compile(r"RESULT (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)")


@dataclass(frozen=True, slots=True)
class Aim:
    """Where requests go: `url` ends in the route of chat completions."""

    url: str
    key: str = "sk-none"
    headers: dict[str, str] = field(default_factory=dict)
    model_prefix: str = ""

    def body(self, model: str, prompt_bytes: int = 400) -> bytes:
        """Return a request body of about `prompt_bytes`; `MARK` stands where each request differs."""
        words = (WORDS * (prompt_bytes // len(WORDS) + 1))[:prompt_bytes]
        fields: dict[str, object] = {
            "model": self.model_prefix + model,
            "messages": [
                {"role": "system", "content": "You are a terse assistant."},
                {"role": "user", "content": f"Summarise text {MARK}. {words}"},
            ],
            "temperature": 0.2,
            "max_tokens": 256,
        }
        if model in ("paced", "burst"):
            fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return msgspec.json.encode(fields)

    def all_headers(self) -> dict[str, str]:
        """Return the headers that every request carries."""
        return {"content-type": "application/json", "authorization": f"Bearer {self.key}", **self.headers}


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk did; latencies are milliseconds."""

    requests: int
    seconds: float
    errors: int
    p50_ms: float
    p99_ms: float


def wrk(aim: Aim, model: str, connections: int, seconds: float, core: int | None, prompt_bytes: int = 400) -> Load:
    """Ask as fast as `connections` allow; every request has a prompt of its own, so that no cache answers.

    Raises:
        RuntimeError: wrk said nothing that can be read.
    """
    head, _, tail = aim.body(model, prompt_bytes).decode().partition(MARK)
    headers = "\n".join(f"wrk.headers[{_lua(name)}] = {_lua(value)}" for name, value in aim.all_headers().items())
    script = SCRIPT % {"head": _lua(head), "tail": _lua(tail), "headers": headers, "seed": time.time_ns() % 2**31}
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script)
        file.flush()
        pinned = [] if core is None else ["taskset", "-c", str(core)]
        duration = f"{max(1, round(seconds))}s"
        options = ["-t1", f"-c{connections}", f"-d{duration}", "--timeout", "20s", "-s", file.name, aim.url]
        said = subprocess.run([*pinned, "wrk", *options], capture_output=True, text=True, check=False)
    match = RESULT.search(said.stdout)
    if match is None:
        raise RuntimeError(f"wrk said nothing of use: {said.stdout[-300:]}{said.stderr[-300:]}")
    requests, micros, errors, p50_us, p99_us = match.groups()
    return Load(int(requests), int(micros) / 1e6, int(errors), float(p50_us) / 1e3, float(p99_us) / 1e3)


def first_frame_ms(aim: Aim, model: str, count: int) -> list[float]:
    """Return the time to the first frame with data of `count` streams, one after another on one connection."""
    return asyncio.run(_first_frames(aim, model, count))


async def _first_frames(aim: Aim, model: str, count: int) -> list[float]:
    host, _, path = aim.url.removeprefix("http://").partition("/")
    name, _, port = host.partition(":")
    reader, writer = await asyncio.open_connection(name, int(port))
    template, took_ms = aim.body(model), []
    for n in range(count):
        body = template.replace(MARK.encode(), f"first-{time.time_ns()}-{n}".encode())
        headers = {**aim.all_headers(), "content-length": str(len(body))}
        lines = [f"POST /{path} HTTP/1.1", f"host: {host}", *(f"{key}: {value}" for key, value in headers.items())]
        began_s = time.perf_counter()
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        await reader.readuntil(b"data:")
        took_ms.append((time.perf_counter() - began_s) * 1000)
        await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    return took_ms


async def idle_connections(aim: Aim, model: str, count: int) -> None:
    """Have `count` streams under way at once, so that as many upstream connections are opened, and end them."""
    await asyncio.gather(*(_first_frames(aim, model, 1) for _ in range(count)))


def _lua(text: str) -> str:
    return msgspec.json.encode(text).decode().replace("\\u", "\\\\u")
