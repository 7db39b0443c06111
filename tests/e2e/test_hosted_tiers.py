"""The gateway with its two bundled tiers: answers, a killed worker, a late one, and nothing left behind."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import HEADGATE, RunningGateway, error_of, run_gateway, stop, write_configuration

pytestmark = pytest.mark.engine

OPERATOR = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
tiers: {small: [small-int4], large: [large-full]}
deployments:
  small-int4: {recipe: bundled-small-int4}
  large-full: {recipe: bundled-large}
"""
STRICT = "tenant: strict\nfallback: false\nwhen_loading: refuse\n"
LENIENT = "tenant: lenient\nfallback: true\n"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    folder: Path = tmp_path_factory.mktemp("hosted")
    write_configuration(folder, OPERATOR, {"strict": STRICT, "lenient": LENIENT})
    with run_gateway(folder) as running:
        yield running


def ask(gateway: RunningGateway, key: str, question: str, model: str = "auto") -> httpx.Response:
    return httpx.post(
        f"{gateway.base_url}/chat/completions",
        headers={"authorization": f"Bearer {key}", "x-headgate-cache": "bypass"},
        json={"model": model, "messages": [{"role": "user", "content": question}], "max_tokens": 32},
        timeout=60,
        trust_env=False,
    )


def text_of(answer: httpx.Response) -> str:
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text.strip()


def test_an_easy_question_comes_from_small_and_a_hard_one_from_large(gateway: RunningGateway) -> None:
    key = gateway.key("strict")
    easy = ask(gateway, key, "Sort these numbers: 7 3 9")
    assert (easy.headers["x-headgate-tier"], text_of(easy)) == ("small", "3 7 9")
    hard = ask(gateway, key, "What is 48 plus 37?")
    assert (hard.headers["x-headgate-tier"], text_of(hard)) == ("large", "85")
    assert easy.headers["x-headgate-reason"] == hard.headers["x-headgate-reason"] == "score"


def test_a_killed_worker_is_told_truthfully_and_comes_back_by_itself(gateway: RunningGateway) -> None:
    strict, lenient = gateway.key("strict"), gateway.key("lenient")
    before = worker_pid(gateway, "large")
    os.kill(before, signal.SIGKILL)
    refused = ask_until(gateway, strict, lambda answer: answer.status_code != 200)
    assert refused.status_code in (502, 503)
    if refused.status_code == 503:
        assert int(refused.headers["retry-after"]) >= 1
        assert error_of(refused)["code"] == "service_unavailable"
    stood_in = ask(gateway, lenient, "What is 48 plus 37?", model="large")
    assert stood_in.status_code == 200
    recovered = ask_until(gateway, strict, lambda answer: answer.status_code == 200)
    assert text_of(recovered) == "85"
    assert worker_pid(gateway, "large") != before


def test_nothing_is_left_behind_after_ctrl_c_or_kill(tmp_path: Path) -> None:
    write_configuration(tmp_path, OPERATOR, {"strict": STRICT})
    with run_gateway(tmp_path) as running:
        workers = children(running.process.pid)
        assert len(workers) == 2
        assert stop(running.process) == 0
        wait_until(lambda: not any(alive(pid) for pid in workers))
    with run_gateway(tmp_path) as running:
        workers = children(running.process.pid)
        running.process.kill()
        running.process.wait()
        wait_until(lambda: not any(alive(pid) for pid in workers))


def test_a_taken_port_refuses_to_start_with_one_line(gateway: RunningGateway) -> None:
    port = gateway.url.rsplit(":", 1)[1]
    command = [*HEADGATE, "serve", "--port", port]
    refused = subprocess.run(command, cwd=gateway.folder, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode == 2
    (line,) = refused.stderr.strip().splitlines()
    assert "listen" in line
    assert port in line


def ask_until(
    gateway: RunningGateway, key: str, wanted: Callable[[httpx.Response], bool], timeout_s: float = 60.0
) -> httpx.Response:
    """Ask the large tier until the answer is as wanted."""
    give_up_at_s = time.monotonic() + timeout_s
    while True:
        answer = ask(gateway, key, "What is 48 plus 37?", model="large")
        if wanted(answer):
            return answer
        assert time.monotonic() < give_up_at_s, f"waited in vain; the last answer was {answer.status_code}"


def wait_until(fact: Callable[[], bool], timeout_s: float = 20.0) -> None:
    give_up_at_s = time.monotonic() + timeout_s
    while not fact():
        assert time.monotonic() < give_up_at_s, "waited in vain"


def worker_pid(gateway: RunningGateway, word: str) -> int:
    """Return the process whose command line names the tier's model."""
    return next(pid for pid in children(gateway.process.pid) if word in command_line(pid))


def children(pid: int) -> list[int]:
    """Return the living direct children of `pid` that serve a model."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if "openvino_server" in command_line(int(child))]


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
