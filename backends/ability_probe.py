"""Finds out what a running model can do, by real requests: tools, JSON, scripts, and how long a prompt it follows.

An ability counts only when every one of its cases is answered rightly. A refused case (status 400 and the like) is a
miss; an engine that fails or cannot be reached ends the probe, which then says nothing.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec

from backends.probe_questions import MAX_TOKENS, SCRIPT_QUESTIONS, Answered, Case, cases
from core.facts import Script

SHARES: Final = (0.125, 0.25, 0.5, 0.75, 0.95)
"""How full the window is, step by step."""
FIRST_LINES: Final = 4
SEED: Final = 20264


class ProbeFailed(Exception):
    """The engine failed while it was probed."""


@dataclass(frozen=True, slots=True)
class Missed:
    """A case that was not answered rightly: what was asked, and what came back, cut short."""

    ability: str
    prompt: str
    came: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a model can do.

    Attributes:
        tools, json: whether every case was answered rightly.
        scripts: those of which every case was.
        context_tokens: the longest prompt from which a fact was found again, as were those in all shorter ones; None
            where the model does not even find it in a short prompt, which tells nothing of length.
        asked: how many requests there were.
        missed: all that went wrong.
    """

    tools: bool
    json: bool
    scripts: tuple[Script, ...]
    context_tokens: int | None
    asked: int
    missed: tuple[Missed, ...]


class _Function(msgspec.Struct, frozen=True):
    name: str
    arguments: str


class _Call(msgspec.Struct, frozen=True):
    function: _Function


class _Message(msgspec.Struct, frozen=True):
    content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, frozen=True):
    message: _Message


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int


class _Answer(msgspec.Struct, frozen=True):
    choices: list[_Choice]
    usage: _Usage | None = None


class AbilityProbe:
    """Asks one model, one request at a time."""

    def __init__(self, client: httpx.AsyncClient, model: str, window_tokens: int) -> None:
        """Take a client whose base URL is the engine's `/v1`, the model's name there, and its window."""
        self._client = client
        self._model = model
        self._window_tokens = window_tokens
        self._asked = 0
        self._missed: list[Missed] = []

    async def run(self, on_step: Callable[[str], None] = lambda _: None) -> Found:
        """Ask everything; `on_step` hears which ability comes next.

        Raises:
            ProbeFailed: the engine failed or cannot be reached.
        """
        able: dict[str, bool] = {}
        for case in cases():
            if case.ability not in able:
                on_step(case.ability)
            able[case.ability] = await self._passes(case) and able.get(case.ability, True)
        on_step("context")
        context_tokens = await self._longest()
        scripts = tuple(script for script in SCRIPT_QUESTIONS if able[script])
        return Found(able["tools"], able["json"], scripts, context_tokens, self._asked, tuple(self._missed))

    async def _passes(self, case: Case) -> bool:
        came = await self._ask(dict(case.body))
        if isinstance(came, _Answer) and case.is_right(_answered(came)):
            return True
        self._miss(case.ability, case.prompt, came)
        return False

    def _miss(self, ability: str, prompt: str, came: "_Answer | str") -> None:
        told = came if isinstance(came, str) else _told(_answered(came))
        self._missed.append(Missed(ability, prompt[:120], told[:120]))

    async def _longest(self) -> int | None:
        """Fill the window further and further, until the fact is not found again."""
        few = await self._recalls(FIRST_LINES)
        many = None if few is None else await self._recalls(4 * FIRST_LINES)
        if few is None or many is None:
            return None
        per_line = max(1.0, (many - few) / (3 * FIRST_LINES))
        longest = many
        for share in SHARES:
            wanted = share * (self._window_tokens - MAX_TOKENS)
            lines = FIRST_LINES + int((wanted - few) / per_line)
            if lines <= 4 * FIRST_LINES:
                continue
            took = await self._recalls(lines)
            if took is None:
                break
            longest = took
        return longest

    async def _recalls(self, lines: int) -> int | None:
        """Return the tokens of a prompt of so many lines if the model finds a fact at two places in it, else None."""
        took = None
        for at in (lines // 4, lines - 1 - lines // 4):
            drawn = random.Random(f"{SEED}/{lines}/{at}")  # noqa: S311 - makes prompts, guards nothing
            codes = [str(drawn.randrange(10_000, 99_999)) for _ in range(lines)]
            listed = "\n".join(f"Box {number + 1} holds the code {code}." for number, code in enumerate(codes))
            prompt = f"{listed}\nWhich code does box {at + 1} hold? Answer with the code alone."
            body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS, "temperature": 0}
            came = await self._ask(body)
            if isinstance(came, str) or came.usage is None or codes[at] not in _answered(came).text:
                self._miss("context", f"{lines} lines, a fact in line {at + 1}", came)
                return None
            took = came.usage.prompt_tokens
        return took

    async def _ask(self, body: dict[str, Any]) -> "_Answer | str":
        """Return the answer, or why there is none; raises ProbeFailed where the engine itself failed."""
        self._asked += 1
        try:
            response = await self._client.post("chat/completions", json={"model": self._model, **body})
        except httpx.HTTPError as problem:
            raise ProbeFailed(f"the engine broke off a request ({type(problem).__name__})") from problem
        if response.status_code in (408, 429) or response.status_code >= 500:
            raise ProbeFailed(f"the engine answered status {response.status_code}")
        if response.status_code != httpx.codes.OK:
            return f"status {response.status_code}"
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return "no chat completion"
        return answer if answer.choices else "no choice"


def _answered(answer: _Answer) -> Answered:
    message = answer.choices[0].message
    calls = tuple((call.function.name, call.function.arguments) for call in message.tool_calls or ())
    return Answered(message.content or "", calls)


def _told(answered: Answered) -> str:
    calls = "".join(f"{name}({arguments})" for name, arguments in answered.calls)
    return calls or repr(answered.text)
