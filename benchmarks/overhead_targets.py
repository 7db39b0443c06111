"""The gateways that the overhead benchmark compares, each as processes of its own before the same upstream.

Peers are used where `--peers FOLDER` holds them: `litellm/` and `tensorzero/` are virtual environments with the package
of that name (`litellm[proxy]`), `portkey/` is a folder after `npm i @portkey-ai/gateway`. Ours runs in its production
configuration: keys, policy, limits, budget, exact cache, a routing rule, an SLA, metrics and the request log.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from benchmarks.overhead_load import Aim
from benchmarks.process_cost import await_quiet, with_children
from tests.e2e.gateway_process import HEADGATE, run_gateway, write_configuration
from tests.upstream.process import unused_port

START_S = 120.0
KEY = "sk-overhead-benchmark-0123456789"
MODELS = ("plain", "paced", "burst", "large")
NGINX = """
daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 2048; }}
http {{ access_log off; keepalive_requests 100000000; client_body_buffer_size 1m; client_max_body_size 32m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream answers {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{
    proxy_pass http://answers; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }} }} }}
"""
OPERATOR = """
listen: 127.0.0.1:8080
admin: {{listen: 127.0.0.1:8081, key_file: var/admin.key}}
state: {state}
policies: tenants
router: {{pair: general}}
tiers: {{small: [plain, paced, burst, large], dearest: [dear]}}
deployments:
{deployments}"""
DEPLOYMENT = (
    "  {name}: {{backend: remote, base_url: http://127.0.0.1:{upstream}/v1, model: {model}, "
    'price: {{input_usd_per_m: "0.15", output_usd_per_m: "0.60"}}}}\n'
)
TENANT = """
tenant: acme
models: {plain: auto, paced: auto, burst: auto, large: auto}
budgets: [{window: month, zone: Europe/Berlin, limit_usd: "9000000", when_exhausted: small_only}]
limits: {requests_per_minute: 100000000, tokens_per_minute: 1000000000000, concurrency: 10000}
sla: {small: {ttft_ms: 5000, total_ms: 30000}, dearest: {ttft_ms: 5000, total_ms: 30000}}
routing:
  rules:
  - {name: plain, when: {models: [plain]}, use: [plain]}
  - {name: paced, when: {models: [paced]}, use: [paced]}
  - {name: burst, when: {models: [burst]}, use: [burst]}
  - {name: large, when: {models: [large]}, use: [large]}
cache: {semantic: SEMANTIC}
"""
TENSORZERO = """import sys, threading
from tensorzero import tensorzero
gateway = tensorzero._start_http_gateway(
    config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None, async_setup=False)
print("BASE", gateway.base_url, flush=True)
threading.Event().wait()
"""
ON_LOOPBACK = """const server = require('net').Server.prototype, listen = server.listen;
server.listen = function (...all) {
  const port = typeof all[0] === 'object' ? all[0].port : all[0];
  return listen.call(this, Number(port), '127.0.0.1', ...all.filter((one) => typeof one === 'function'));
};
"""


@dataclass(frozen=True, slots=True)
class Running:
    """A live target; `pid` is None where there is no process to measure."""

    aim: Aim
    pid: int | None
    admin_url: str = ""

    def pids(self) -> set[int]:
        """Return its processes now."""
        return set() if self.pid is None else with_children(self.pid)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a target runs: a folder for its files, the port of its upstream, the folder of the peers, our command."""

    folder: Path
    upstream: int
    peers: Path | None = None
    command: tuple[str, ...] = HEADGATE


@contextmanager
def running(name: str, place: Place) -> Iterator[Running]:
    """Run a target until the block ends.

    Raises:
        RuntimeError: it did not start; the message holds the end of its log.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    if name == "direct":
        yield Running(Aim(f"http://127.0.0.1:{place.upstream}/v1/chat/completions"), None)
    elif name.startswith("headgate"):
        with _headgate(name, place) as ours:
            yield ours
    else:
        with STARTERS[name](place) as theirs:
            yield theirs


def missing(name: str, peers: Path | None) -> str | None:
    """Return why a target cannot run here, None when it can."""
    if name == "nginx":
        return None if shutil.which("nginx") else "no nginx (Debian: apt-get install nginx-light)"
    if name in NEEDED:
        there = None if peers is None else peers / NEEDED[name]
        return None if there is not None and there.exists() else f"no {NEEDED[name]} in --peers"
    return None


def version_of(name: str, peers: Path | None) -> str:
    """Return the version of a target, empty when it says none."""
    if name.startswith("headgate"):
        return version("headgate")
    if name == "nginx":
        return subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=False).stderr.strip()
    if peers is None or name not in NEEDED:
        return ""
    if name == "portkey":
        package = json.loads((peers / "portkey/node_modules/@portkey-ai/gateway/package.json").read_text())
        return str(package["version"])
    found = next((peers / name).glob(f"lib/*/site-packages/{name.replace('-', '_')}-*.dist-info"), None)
    return "" if found is None else found.name.split("-")[1].removesuffix(".dist")


def configure(
    folder: Path, upstream_port: int, *, state: str | None = None, semantic: bool = False, more: str = ""
) -> None:
    """Write our production configuration, with `more` keys; the state is in SQLite, or where `state` says."""
    named = [(model, model) for model in MODELS] + [("dear", "plain")]
    deployments = "".join(DEPLOYMENT.format(name=name, model=model, upstream=upstream_port) for name, model in named)
    operator = OPERATOR.format(state=state or "sqlite:var/headgate.db", deployments=deployments) + more
    write_configuration(folder, operator, {"acme": TENANT.replace("SEMANTIC", str(semantic).lower())})


@contextmanager
def _headgate(name: str, place: Place) -> Iterator[Running]:
    """Run ours; `-redis` keeps its state in Redis, `-workers` too with two workers, `-semantic` looks up by meaning."""
    with _redis(name in ("headgate-redis", "headgate-workers")) as url:
        more = "workers: 2\n" if name == "headgate-workers" else ""
        configure(place.folder, place.upstream, state=url, semantic=name == "headgate-semantic", more=more)
        with run_gateway(place.folder, command=place.command) as gateway:
            await_quiet(gateway.process.pid)  # until the encoder is loaded
            yield Running(
                Aim(gateway.base_url + "/chat/completions", gateway.key("acme")), gateway.process.pid, gateway.admin_url
            )


@contextmanager
def _redis(is_wanted: bool) -> Iterator[str | None]:
    if not is_wanted:
        yield None
        return
    from tests.redis_server import RedisServer

    server = RedisServer()
    server.start()
    try:
        yield server.url
    finally:
        server.close()


@contextmanager
def _process(command: Sequence[str], port: int, log: Path, environment: dict[str, str] | None = None) -> Iterator[int]:
    """Run a process until the block ends; yields its id once it accepts connections."""
    quiet = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, stdout=file, stderr=file, env=quiet | (environment or {}), start_new_session=True
        )
    try:
        _await_port(child, port, log)
        yield child.pid
    finally:
        with_its = with_children(child.pid)
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(10)
        except subprocess.TimeoutExpired:
            for pid in with_its:
                os.kill(pid, signal.SIGKILL)
            child.wait()


def _await_port(child: subprocess.Popen[bytes], port: int, log: Path) -> None:
    give_up_at_s = time.monotonic() + START_S
    while time.monotonic() < give_up_at_s and child.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"did not start: {log.read_text()[-500:]}")


@contextmanager
def upstream(port: int, folder: Path) -> Iterator[int]:
    """Run the upstream that all targets share."""
    with _process(
        [sys.executable, "-m", "benchmarks.overhead_upstream", "--port", str(port)], port, folder / "up"
    ) as pid:
        yield pid


@contextmanager
def _nginx(place: Place) -> Iterator[Running]:
    port = unused_port()
    configuration = place.folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=place.folder, upstream=place.upstream, port=port))
    command = ["nginx", "-c", str(configuration), "-e", str(place.folder / "nginx.err")]
    with _process(command, port, place.folder / "log") as pid:
        yield Running(_aim(port), pid)


@contextmanager
def _litellm(place: Place) -> Iterator[Running]:
    assert place.peers is not None
    port, base = unused_port(), f"http://127.0.0.1:{place.upstream}/v1"
    routed = {"api_base": base, "api_key": "sk-none"}
    configuration = {
        "model_list": [
            {"model_name": name, "litellm_params": {"model": f"openai/{name}", **routed}} for name in MODELS
        ],
        "litellm_settings": {"drop_params": True, "telemetry": False, "num_retries": 0},
        "general_settings": {"disable_spend_logs": True, "master_key": KEY},
    }
    (place.folder / "litellm.yaml").write_text(json.dumps(configuration))
    command = [str(place.peers / "litellm/bin/litellm"), "--config", str(place.folder / "litellm.yaml")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    with _process(command, port, place.folder / "log", environment | {"NO_PROXY": "*"}) as pid:
        yield Running(_aim(port, KEY), pid)


@contextmanager
def _portkey(place: Place) -> Iterator[Running]:
    assert place.peers is not None
    port = unused_port()
    (place.folder / "loopback.cjs").write_text(ON_LOOPBACK)
    script = place.peers / "portkey/node_modules/@portkey-ai/gateway/build/start-server.js"
    command = ["node", "-r", str(place.folder / "loopback.cjs"), str(script), f"--port={port}", "--headless"]
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": f"http://127.0.0.1:{place.upstream}/v1"}
    with _process(command, port, place.folder / "log", {"NODE_ENV": "production"}) as pid:
        yield Running(Aim(f"http://127.0.0.1:{port}/v1/chat/completions", KEY, headers), pid)


@contextmanager
def _tensorzero(place: Place) -> Iterator[Running]:
    assert place.peers is not None
    port = unused_port()
    models = "".join(
        f'\n[models.{name}]\nrouting = ["up"]\n[models.{name}.providers.up]\ntype = "openai"\nmodel_name = "{name}"\n'
        f'api_base = "http://127.0.0.1:{place.upstream}/v1/"\napi_key_location = "none"\n'
        for name in MODELS
    )
    gateway = f'[gateway]\nbind_address = "127.0.0.1:{port}"\nobservability.enabled = false\n'
    (place.folder / "tensorzero.toml").write_text(gateway + models)
    (place.folder / "serve.py").write_text(TENSORZERO)
    command = [str(place.peers / "tensorzero/bin/python"), str(place.folder / "serve.py")]
    log = place.folder / "log"
    with log.open("wb") as file:
        child = subprocess.Popen(
            [*command, str(place.folder / "tensorzero.toml")], stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield Running(_told_aim(child, log), child.pid)
    finally:
        child.kill()
        child.wait()


def _told_aim(child: subprocess.Popen[bytes], log: Path) -> Aim:
    """Return where TensorZero listens, which its log says: the port of its configuration is not used."""
    give_up_at_s = time.monotonic() + START_S
    while time.monotonic() < give_up_at_s and child.poll() is None:
        if match := re.search(r"BASE (http://\S+)", log.read_text()):
            base = match[1].rstrip("/").replace("0.0.0.0", "127.0.0.1")
            return Aim(f"{base.removesuffix('/v1')}/v1/chat/completions", model_prefix="tensorzero::model_name::")
        time.sleep(0.1)
    raise RuntimeError(f"did not start: {log.read_text()[-500:]}")


def _aim(port: int, key: str = KEY) -> Aim:
    return Aim(f"http://127.0.0.1:{port}/v1/chat/completions", key)


STARTERS = {"nginx": _nginx, "litellm": _litellm, "portkey": _portkey, "tensorzero": _tensorzero}
NEEDED = {
    "litellm": "litellm/bin/litellm",
    "tensorzero": "tensorzero/bin/python",
    "portkey": "portkey/node_modules/@portkey-ai/gateway/build/start-server.js",
}
