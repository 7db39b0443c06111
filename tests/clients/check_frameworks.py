"""LangChain and LlamaIndex against a running gateway; prints one JSON object: check -> "ok" or what went wrong.

Runs in an environment of its own, since these pin another major version of the OpenAI SDK.
"""

import json
import os
import traceback
import urllib.request
from collections.abc import Callable

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

GATEWAY, UPSTREAM, KEY = (os.environ[name] for name in ("GATEWAY", "UPSTREAM", "KEY"))
BASE = f"{GATEWAY}/v1"


@tool  # type: ignore[untyped-decorator]  # the framework is not installed where types are checked
def look_up(q: str) -> str:
    """Look something up."""
    return q


def obey(script: str) -> None:
    request = urllib.request.Request(f"{UPSTREAM}/script", data=script.encode(), method="POST")
    urllib.request.urlopen(request).read()


def released() -> str:
    with urllib.request.urlopen(f"{UPSTREAM}/seen?settle_s=5") as answer:
        state: str = json.load(answer)[-1]["state"]
    return state


def failure_of(work: Callable[[], object]) -> Exception:
    try:
        work()
    except Exception as problem:
        return problem
    raise AssertionError("no error")


CHATS = {
    "langchain chat": ChatOpenAI(model="large", base_url=BASE, api_key=KEY, max_retries=0, stream_usage=True),
    "langchain responses": ChatOpenAI(model="large", base_url=BASE, api_key=KEY, max_retries=0, use_responses_api=True),
    "langchain anthropic": ChatAnthropic(model="large", base_url=GATEWAY, api_key=KEY, max_retries=0),
}
LLAMA = OpenAILike(
    model="large", api_base=BASE, api_key=KEY, is_chat_model=True, is_function_calling_model=True, max_retries=0
)


def langchain_checks(name: str) -> dict[str, Callable[[], None]]:
    chat = CHATS[name]

    def text() -> None:
        assert chat.invoke(f"{name} text").text == f"answer to: {name} text"

    def stream() -> None:
        chunks = list(chat.stream(f"{name} stream"))
        assert "".join(chunk.text for chunk in chunks) == f"answer to: {name} stream"
        assert any(chunk.usage_metadata for chunk in chunks)

    def tools() -> None:
        bound = chat.bind_tools([look_up], tool_choice="look_up")
        assert bound.invoke("go").tool_calls[0]["name"] == "look_up"

    def error() -> None:
        problem = failure_of(lambda: chat.model_copy(update={"model_name": "nope", "model": "nope"}).invoke("x"))
        assert getattr(problem, "status_code", None) == 404, problem

    def broken_stream() -> None:
        obey("n=8;cut=3")
        problem = failure_of(lambda: list(chat.stream(f"cut {name}")))
        assert "cut" in str(problem), problem

    def cancel() -> None:
        obey("n=200;gap=50")
        stream = chat.stream(f"leave {name}")
        next(stream)
        stream.close()
        assert released() == "disconnected", released()

    checks = (text, stream, tools, error, broken_stream, cancel)
    return {f"{name} {check.__name__.replace('_', ' ')}": check for check in checks}


def llama_text() -> None:
    assert LLAMA.chat([ChatMessage(content="llama text")]).message.content == "answer to: llama text"


def llama_stream() -> None:
    parts = [part.delta or "" for part in LLAMA.stream_chat([ChatMessage(content="llama stream")])]
    assert "".join(parts) == "answer to: llama stream"


def llama_tools() -> None:
    from llama_index.core.tools import FunctionTool

    tools = [FunctionTool.from_defaults(fn=lambda q: q, name="look_up", description="d")]
    answer = LLAMA.chat_with_tools(tools, user_msg="go", tool_required=True)
    assert LLAMA.get_tool_calls_from_response(answer)[0].tool_name == "look_up"


def llama_broken_stream() -> None:
    obey("n=8;cut=3")
    problem = failure_of(lambda: list(LLAMA.stream_chat([ChatMessage(content="cut llama")])))
    assert "cut" in str(problem), problem


def llama_completion() -> None:
    completing = OpenAILike(model="large", api_base=BASE, api_key=KEY, is_chat_model=False, max_retries=0)
    assert completing.complete("llama completion").text == "answer to: llama completion"


def main() -> None:
    checks: dict[str, Callable[[], None]] = {}
    for name in CHATS:
        checks |= langchain_checks(name)
    for check in (llama_text, llama_stream, llama_tools, llama_broken_stream, llama_completion):
        checks[f"llamaindex {check.__name__.removeprefix('llama_').replace('_', ' ')}"] = check
    results = {}
    for name, check in checks.items():
        obey("")
        try:
            check()
        except Exception:
            results[name] = traceback.format_exc()[-400:]
        else:
            results[name] = "ok"
    print(json.dumps(results))


if __name__ == "__main__":
    main()
