"""The six things that every client must be able to do with a gateway, whatever it calls them."""

import json
import os
import traceback
import urllib.request
from collections.abc import Callable, Mapping
from typing import Protocol

GATEWAY, UPSTREAM, KEY = (os.environ[name] for name in ("GATEWAY", "UPSTREAM", "KEY"))
BASE = f"{GATEWAY}/v1"
Check = Callable[[], None]


class Client(Protocol):
    """One client on one wire, with its own retries off."""

    def text(self, prompt: str, model: str = "large") -> str:
        """Return the text of a whole answer."""
        ...

    def stream(self, prompt: str) -> str:
        """Return the text of a streamed answer."""
        ...

    def tool(self, prompt: str) -> str:
        """Return the name of the tool that the answer calls; the client has one, `look_up`."""
        ...

    def leave(self, prompt: str) -> None:
        """Begin a streamed answer and leave it."""
        ...


def run(clients: Mapping[str, Client], further: Mapping[str, Check]) -> None:
    """Print one JSON object: check -> "ok" or what went wrong."""
    checks = {f"{name}: {what}": check for name, client in clients.items() for what, check in _checks(name, client)}
    results = {}
    for name, check in {**checks, **further}.items():
        _obey("")
        try:
            check()
        except Exception:
            results[name] = traceback.format_exc()[-400:]
        else:
            results[name] = "ok"
    print(json.dumps(results))


def _checks(name: str, client: Client) -> list[tuple[str, Check]]:
    def text() -> None:
        assert client.text(f"{name} text") == f"answer to: {name} text"

    def stream() -> None:
        assert client.stream(f"{name} stream") == f"answer to: {name} stream"

    def tools() -> None:
        assert client.tool("go") == "look_up"

    def errors() -> None:
        problem = _failure_of(lambda: client.text("x", model="nope"))
        assert getattr(problem, "status_code", None) == 404, problem

    def broken_stream() -> None:
        _obey("n=8;cut=3")
        problem = _failure_of(lambda: client.stream(f"{name} broken"))
        assert "cut" in str(problem), problem

    def cancel() -> None:
        _obey("n=200;gap=50")
        client.leave(f"{name} leaves")
        assert _state_of_last() == "disconnected", _state_of_last()

    return [(one.__name__.replace("_", " "), one) for one in (text, stream, tools, errors, broken_stream, cancel)]


def _obey(script: str) -> None:
    request = urllib.request.Request(f"{UPSTREAM}/script", data=script.encode(), method="POST")
    urllib.request.urlopen(request).read()


def _state_of_last() -> str:
    with urllib.request.urlopen(f"{UPSTREAM}/seen?settle_s=5") as answer:
        state: str = json.load(answer)[-1]["state"]
    return state


def _failure_of(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as problem:
        return problem
    raise AssertionError("no error")
