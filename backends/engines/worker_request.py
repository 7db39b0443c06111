"""Decodes the body of a chat request as a worker needs it; fields that we do not know are tolerated."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from backends.engines.generation import Sampling

MAX_CHOICES = 16
MAX_STOPS = 16
GREEDY_BELOW = 1e-3
ANY_OBJECT = '{"type":"object"}'
"""The only schema that reaches the engine; one that its grammar compiler rejects would end the engine in a step."""


class RequestRefused(Exception):
    """A client error that becomes an OpenAI error object."""

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status


class _Part(msgspec.Struct, frozen=True):
    type: str
    text: str | None = None


class _Message(msgspec.Struct, frozen=True):
    role: str
    content: str | list[_Part] | None = None


class _StreamOptions(msgspec.Struct, frozen=True):
    include_usage: bool | None = None


class _ResponseFormat(msgspec.Struct, frozen=True):
    type: str


class _Body(msgspec.Struct, frozen=True):
    model: str
    messages: list[_Message]
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    n: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    response_format: _ResponseFormat | None = None
    ignore_eos: bool | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the operator set for this worker; without `has_all_controls` it knows no penalties and no JSON mode."""

    model: str
    context_tokens: int
    max_output_tokens: int
    default_temperature: float
    has_all_controls: bool = True


@dataclass(frozen=True, slots=True)
class WorkerRequest:
    """One chat request, checked, before its prompt is encoded."""

    messages: tuple[Mapping[str, str], ...]
    stream: bool
    include_usage: bool
    asked_tokens: int | None
    choices: int
    stops: tuple[str, ...]
    temperature: float
    top_p: float
    top_k: int | None
    seed: int
    presence_penalty: float
    frequency_penalty: float
    json_schema: str | None
    ignore_eos: bool

    def sampling(self, prompt_tokens: int, choice: int, limits: Limits) -> Sampling:
        """Return how to sample one choice; the output limit is cut to the room that the context leaves.

        Raises:
            RequestRefused: the prompt leaves no room for a single token.
        """
        room = limits.context_tokens - prompt_tokens
        if room < 1:
            raise RequestRefused(
                f"This model's context holds {limits.context_tokens} tokens, prompt and answer together; "
                f"the messages need {prompt_tokens}. Shorten them.",
                param="messages",
                code="context_length_exceeded",
            )
        wanted = self.asked_tokens or limits.max_output_tokens
        return Sampling(
            max_tokens=min(wanted, limits.max_output_tokens, room),
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            seed=self.seed + choice,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            json_schema=self.json_schema,
            ignore_eos=self.ignore_eos,
        )


_decoder = msgspec.json.Decoder(_Body)


def parse(raw: bytes, limits: Limits) -> WorkerRequest:
    """Decode and check a request body.

    Raises:
        RequestRefused: not JSON, a wrong type, a value out of range, another model, or content other than text.
    """
    try:
        body = _decoder.decode(raw)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as problem:
        raise RequestRefused(f"The request body is not a valid chat request: {problem}") from problem
    if body.model != limits.model:
        raise RequestRefused(
            f"This engine serves {limits.model!r}, not {body.model[:120]!r}.",
            param="model",
            code="model_not_found",
            status=404,
        )
    _check_ranges(body)
    _check_controls(body, limits)
    return WorkerRequest(
        messages=tuple({"role": message.role, "content": _text(message)} for message in body.messages),
        stream=bool(body.stream),
        include_usage=body.stream_options is not None and bool(body.stream_options.include_usage),
        asked_tokens=body.max_completion_tokens or body.max_tokens,
        choices=body.n or 1,
        stops=_stops(body.stop),
        temperature=_temperature(body, limits),
        top_p=body.top_p or 1.0,
        top_k=body.top_k if body.top_k is not None and body.top_k > 0 else None,
        # Without a seed of our own OpenVINO would repeat itself: its default seed is a constant.
        seed=secrets.randbits(32) if body.seed is None else body.seed % 2**32,
        presence_penalty=body.presence_penalty or 0.0,
        frequency_penalty=body.frequency_penalty or 0.0,
        json_schema=_schema(body.response_format),
        ignore_eos=bool(body.ignore_eos),
    )


def _check_ranges(body: _Body) -> None:
    ranges: tuple[tuple[str, float | None, float, float], ...] = (
        ("max_tokens", body.max_tokens, 1, 2**31),
        ("max_completion_tokens", body.max_completion_tokens, 1, 2**31),
        ("n", body.n, 1, MAX_CHOICES),
        ("temperature", body.temperature, 0, 2),
        ("top_p", body.top_p, 0, 1),
        ("presence_penalty", body.presence_penalty, -2, 2),
        ("frequency_penalty", body.frequency_penalty, -2, 2),
    )
    for name, value, least, most in ranges:
        if value is not None and not least <= value <= most:
            raise RequestRefused(f"{name!r} must be between {least} and {most}.", param=name)
    if not body.messages:
        raise RequestRefused("'messages' must hold at least one message.", param="messages")


def _check_controls(body: _Body, limits: Limits) -> None:
    """Refuse what the engine would silently leave out."""
    if limits.has_all_controls:
        return
    for name, value in (("presence_penalty", body.presence_penalty), ("frequency_penalty", body.frequency_penalty)):
        if value:
            raise RequestRefused(f"This engine cannot apply {name!r}; leave it out.", param=name)
    if _schema(body.response_format) is not None:
        raise RequestRefused("This engine cannot enforce JSON; leave 'response_format' out.", param="response_format")


def _temperature(body: _Body, limits: Limits) -> float:
    wanted = limits.default_temperature if body.temperature is None else body.temperature
    return 0.0 if body.top_p == 0 or wanted < GREEDY_BELOW else wanted


def _text(message: _Message) -> str:
    if not isinstance(message.content, list):
        return message.content or ""
    if any(part.type != "text" or part.text is None for part in message.content):
        raise RequestRefused("This engine reads text only; remove the other content parts.", param="messages")
    return "\n".join(part.text or "" for part in message.content)


def _stops(stop: str | list[str] | None) -> tuple[str, ...]:
    stops = (stop,) if isinstance(stop, str) else tuple(stop or ())
    if len(stops) > MAX_STOPS:
        raise RequestRefused(f"'stop' takes at most {MAX_STOPS} strings.", param="stop")
    return tuple(text for text in stops if text)


def _schema(wanted: _ResponseFormat | None) -> str | None:
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return ANY_OBJECT
    raise RequestRefused("This engine can enforce text and json_object only.", param="response_format")
