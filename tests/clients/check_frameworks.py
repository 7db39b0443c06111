"""LangChain and LlamaIndex against a running gateway; prints what `checking.run` prints.

Runs in an environment of its own, since these pin another major version of the OpenAI SDK.
"""

import asyncio
from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

from tests.clients.checking import BASE, GATEWAY, KEY, Client, run


@tool  # type: ignore[untyped-decorator]  # the framework is not installed where types are checked
def look_up(q: str) -> str:
    """Look something up."""
    return q


class LangChain:
    """One chat model of LangChain."""

    def __init__(self, chat: Any) -> None:
        self._chat = chat

    def text(self, prompt: str, model: str = "large") -> str:
        return str(self._chat.model_copy(update={"model_name": model, "model": model}).invoke(prompt).text)

    def stream(self, prompt: str) -> str:
        chunks = list(self._chat.stream(prompt))
        assert any(chunk.usage_metadata for chunk in chunks)
        return "".join(chunk.text for chunk in chunks)

    def tool(self, prompt: str) -> str:
        return str(self._chat.bind_tools([look_up], tool_choice="look_up").invoke(prompt).tool_calls[0]["name"])

    def leave(self, prompt: str) -> None:
        stream = self._chat.stream(prompt)
        next(stream)
        stream.close()


def llama(model: str = "large", *, is_chat_model: bool = True) -> Any:
    """Return a model of LlamaIndex."""
    return OpenAILike(
        model=model,
        api_base=BASE,
        api_key=KEY,
        is_chat_model=is_chat_model,
        is_function_calling_model=is_chat_model,
        max_retries=0,
    )


class LlamaIndex:
    """Chat by LlamaIndex."""

    def text(self, prompt: str, model: str = "large") -> str:
        return str(llama(model).chat([ChatMessage(content=prompt)]).message.content)

    def stream(self, prompt: str) -> str:
        return "".join(part.delta or "" for part in llama().stream_chat([ChatMessage(content=prompt)]))

    def tool(self, prompt: str) -> str:
        tools = [FunctionTool.from_defaults(fn=lambda q: q, name="look_up", description="d")]
        answer = llama().chat_with_tools(tools, user_msg=prompt, tool_required=True)
        return str(llama().get_tool_calls_from_response(answer)[0].tool_name)

    def leave(self, prompt: str) -> None:
        """Cancel the task that reads: closing its generator leaves the request open until it is collected."""
        asyncio.run(self._leave(prompt))

    async def _leave(self, prompt: str) -> None:
        begun = asyncio.Event()

        async def read() -> None:
            async for _ in await llama().astream_chat([ChatMessage(content=prompt)]):
                begun.set()

        reading = asyncio.create_task(read())
        await begun.wait()
        reading.cancel()
        await asyncio.wait({reading})


def completion() -> None:
    """Ask by the legacy wire."""
    assert llama(is_chat_model=False).complete("a completion").text == "answer to: a completion"


if __name__ == "__main__":
    common: Any = {"model": "large", "api_key": KEY, "max_retries": 0}
    chats = {
        "chat": ChatOpenAI(base_url=BASE, stream_usage=True, **common),
        "responses": ChatOpenAI(base_url=BASE, use_responses_api=True, **common),
        "messages": ChatAnthropic(base_url=GATEWAY, **common),
    }
    clients: dict[str, Client] = {f"LangChain, {name}": LangChain(chat) for name, chat in chats.items()}
    clients["LlamaIndex"] = LlamaIndex()
    run(clients, {"LlamaIndex, completion": completion})
