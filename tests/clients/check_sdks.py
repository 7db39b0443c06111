"""The Python SDKs of OpenAI and Anthropic against a running gateway; prints what `checking.run` prints."""

from typing import Any

import anthropic
import openai

from tests.clients.checking import BASE, GATEWAY, KEY, Client, run

SCHEMA: Any = {"type": "object", "properties": {"q": {"type": "string"}}}
FUNCTION: Any = {"name": "look_up", "description": "d", "parameters": SCHEMA}
OPENAI = openai.OpenAI(base_url=BASE, api_key=KEY, max_retries=0)
CLAUDE = anthropic.Anthropic(base_url=GATEWAY, api_key=KEY, max_retries=0)


class Chat:
    """Chat completions."""

    def _asked(self, prompt: str, model: str = "large", **fields: Any) -> Any:
        messages: Any = [{"role": "user", "content": prompt}]
        return OPENAI.chat.completions.create(model=model, messages=messages, **fields)

    def text(self, prompt: str, model: str = "large") -> str:
        return str(self._asked(prompt, model).choices[0].message.content)

    def stream(self, prompt: str) -> str:
        return "".join(chunk.choices[0].delta.content or "" for chunk in self._asked(prompt, stream=True))

    def tool(self, prompt: str) -> str:
        answer = self._asked(prompt, tools=[{"type": "function", "function": FUNCTION}], tool_choice="required")
        return str(answer.choices[0].message.tool_calls[0].function.name)

    def leave(self, prompt: str) -> None:
        with self._asked(prompt, stream=True) as stream:
            next(iter(stream))


class Responses:
    """OpenAI's Responses."""

    def text(self, prompt: str, model: str = "large") -> str:
        return OPENAI.responses.create(model=model, input=prompt).output_text

    def stream(self, prompt: str) -> str:
        with OPENAI.responses.stream(model="large", input=prompt) as stream:
            return stream.get_final_response().output_text

    def tool(self, prompt: str) -> str:
        tools: Any = [{"type": "function", **FUNCTION}]
        call: Any = OPENAI.responses.create(model="large", input=prompt, tools=tools, tool_choice="required").output[0]
        return str(call.name)

    def leave(self, prompt: str) -> None:
        with OPENAI.responses.create(model="large", input=prompt, stream=True) as stream:
            next(event for event in stream if event.type == "response.output_text.delta")


class Messages:
    """Anthropic's Messages."""

    def _asked(self, prompt: str, **fields: Any) -> dict[str, Any]:
        return {"model": "large", "max_tokens": 500, "messages": [{"role": "user", "content": prompt}], **fields}

    def text(self, prompt: str, model: str = "large") -> str:
        block: Any = CLAUDE.messages.create(**self._asked(prompt, model=model)).content[0]
        return str(block.text)

    def stream(self, prompt: str) -> str:
        with CLAUDE.messages.stream(**self._asked(prompt)) as stream:
            return stream.get_final_text()

    def tool(self, prompt: str) -> str:
        tool: Any = {"name": "look_up", "description": "d", "input_schema": SCHEMA}
        use: Any = CLAUDE.messages.create(**self._asked(prompt, tools=[tool], tool_choice={"type": "any"})).content[0]
        return str(use.name)

    def leave(self, prompt: str) -> None:
        with CLAUDE.messages.stream(**self._asked(prompt)) as stream:
            next(iter(stream.text_stream))


if __name__ == "__main__":
    clients: dict[str, Client] = {
        "openai (Python), chat": Chat(),
        "openai (Python), responses": Responses(),
        "anthropic (Python)": Messages(),
    }
    run(clients, {})
