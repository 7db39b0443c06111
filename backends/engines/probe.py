"""Asks an engine over loopback HTTP whether it is there, serves the right model, and generates."""

from types import TracebackType
from typing import Self

import httpx
import msgspec


class WrongAnswer(Exception):
    """The engine answers, but not as an OpenAI-compatible server of this model would."""


class _Model(msgspec.Struct, frozen=True):
    id: str


class _Models(msgspec.Struct, frozen=True):
    data: list[_Model]


class _Answer(msgspec.Struct, frozen=True):
    choices: list[msgspec.Raw]


class EngineProbe:
    """Questions to one engine generation; never uses a proxy."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._client = httpx.AsyncClient(base_url=url, timeout=timeout_s, trust_env=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()

    async def lists(self, model: str) -> bool:
        """Return whether the engine answers yet.

        Raises:
            WrongAnswer: it answers with something other than a list of models, or without this one.
        """
        try:
            response = await self._client.get("/v1/models")
        except httpx.HTTPError:
            return False
        if response.status_code != httpx.codes.OK:
            return False
        try:
            known = [listed.id for listed in msgspec.json.decode(response.content, type=_Models).data]
        except (msgspec.DecodeError, msgspec.ValidationError) as problem:
            raise WrongAnswer("answers /v1/models with something other than a list of models") from problem
        if model not in known:
            raise WrongAnswer(f"serves {', '.join(known)[:120] or 'no model'} instead of {model}")
        return True

    async def generates(self, model: str, timeout_s: float) -> None:
        """Have one token generated, which proves readiness.

        Raises:
            WrongAnswer: that fails, or what comes back is no chat completion.
        """
        try:
            response = await self._client.post(
                "/v1/chat/completions",
                content=_first_request(model),
                headers={"content-type": "application/json"},
                timeout=timeout_s,
            )
        except httpx.HTTPError as problem:
            raise WrongAnswer(f"breaks off its first chat request ({type(problem).__name__})") from problem
        if response.status_code != httpx.codes.OK:
            raise WrongAnswer(f"answers its first chat request with status {response.status_code}")
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
        except (msgspec.DecodeError, msgspec.ValidationError) as problem:
            raise WrongAnswer("answers its first chat request with something other than a completion") from problem
        if not answer.choices:
            raise WrongAnswer("answers its first chat request without a choice")

    async def tell(self, path: str, timeout_s: float) -> bool:
        """Post nothing to `path`, as engines want it that can sleep and wake; return whether they obey."""
        try:
            return (await self._client.post(path, timeout=timeout_s)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    async def is_alive(self, health_path: str) -> bool:
        """Return whether the engine says that it makes progress."""
        try:
            return (await self._client.get(health_path)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


def _first_request(model: str) -> bytes:
    message = {"role": "user", "content": "Hello"}
    return msgspec.json.encode({"model": model, "messages": [message], "max_tokens": 1})
