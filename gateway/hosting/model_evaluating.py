"""Runs a suite through two models: on engines started for the purpose, one after the other, or through a gateway.

Every question is asked once of each, streamed, at temperature 0, the cache bypassed. An answer that does not come is
counted and counts as wrong; where none comes, that is the error.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256
from pathlib import Path

import httpx
import msgspec

from backends.engines.devices import device_bytes
from backends.engines.evaluation import (
    Answered,
    Evaluation,
    Identity,
    Run,
    Thresholds,
    accuracy,
    agreement,
    scores,
    speed,
)
from backends.engines.kinds import engine_version, launcher_of
from backends.engines.recipes import Recipe
from backends.engines.suite import Suite, Task
from backends.engines.weights_digest import recipe_digest
from core.clock import Clock
from core.errors import ConfigurationError
from core.money import NANO_PER_USD, Price, Usage
from gateway.hosting.one_engine import one_engine
from policies.prices import parse_price

ANSWER_TIMEOUT_S = 300.0
Advance = Callable[[], None]


@dataclass(frozen=True, slots=True)
class Effort:
    """How the questions are asked: so many at a time, each answer up to so many tokens."""

    concurrency: int = 8
    max_tokens: int = 256


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Who is asked: a base URL up to and with /v1, the model's name there, headers, and the price of its tokens.

    Without a price the cost is what the gateway tells in its usage chunk; `tier` is the one that has to answer there.
    """

    base_url: str
    model: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    price: Price | None = None
    tier: str | None = None


class _Delta(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    delta: _Delta = _Delta()


class _TokenCounts(msgspec.Struct, frozen=True):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Cost(msgspec.Struct, frozen=True):
    cost_usd: str = "0"


class _Chunk(msgspec.Struct, frozen=True):
    choices: list[_Choice] = []
    usage: _TokenCounts | None = None
    headgate: _Cost | None = None
    error: msgspec.Raw | None = None


def identity_of(recipe: Recipe) -> Identity:
    """Return what an evaluation of this recipe's model is of."""
    return Identity(
        name=recipe.name,
        weights_digest=recipe_digest(recipe),
        engine=engine_version(recipe.engine),
        precision=recipe.spec.precision,
    )


async def run_on_engine(
    recipe: Recipe, suite: Suite, effort: Effort, state_dir: Path, clock: Clock, advance: Advance
) -> Run:
    """Start the recipe's engine by itself, ask it everything, and stop it.

    Raises:
        ConfigurationError: the engine does not start, or answers nothing.
    """
    price = parse_price(dict(recipe.price), str(recipe.file), "price")
    launcher = launcher_of(recipe, device_bytes, single_tenant=lambda: True)
    async with one_engine(launcher, state_dir, clock) as engine:
        endpoint = Endpoint(engine.base_url or "", recipe.spec.model, price=price)
        return await run_suite(endpoint, suite, effort, clock, advance)


async def run_suite(endpoint: Endpoint, suite: Suite, effort: Effort, clock: Clock, advance: Advance) -> Run:
    """Ask one model everything; the first question is asked once more beforehand, so that none pays for a cold start.

    Raises:
        ConfigurationError: no question at all was answered.
    """
    gate = asyncio.Semaphore(effort.concurrency)
    problems: list[str] = []
    limits = httpx.Limits(max_connections=effort.concurrency)
    timeout = httpx.Timeout(ANSWER_TIMEOUT_S)
    async with httpx.AsyncClient(headers=endpoint.headers, timeout=timeout, trust_env=False, limits=limits) as client:

        async def one(task: Task) -> Answered:
            async with gate:
                try:
                    return await _ask(client, endpoint, task, effort.max_tokens, clock)
                except (httpx.HTTPError, msgspec.MsgspecError, ValueError) as problem:
                    problems.append(f"{type(problem).__name__} {problem}"[:200])
                    return Answered(None)
                finally:
                    advance()

        await _ask_once(client, endpoint, suite.tasks[0], effort, clock)
        began_s = clock.monotonic_s()
        answers = await asyncio.gather(*(one(task) for task in suite.tasks))
    if all(answer.text is None for answer in answers):
        line = " ".join(problems[0].split())
        raise ConfigurationError(f"model {endpoint.model}", "", f"answered nothing: {line}", "see its log")
    return Run(tuple(answers), clock.monotonic_s() - began_s)


def evaluation(
    suite: Suite,
    subject: tuple[Identity, Run],
    reference: tuple[Identity, Run],
    effort: Effort,
    through: str,
    least: Thresholds,
    clock: Clock,
) -> Evaluation:
    """Reduce two runs of one suite to what is kept of them; no question and no answer is."""
    (of, own), (beside, other) = subject, reference
    return Evaluation(
        subject=of,
        reference=beside,
        suite=suite.name,
        suite_digest=f"sha256:{sha256(suite.content).hexdigest()}",
        evaluated_at=clock.now().replace(microsecond=0),
        concurrency=effort.concurrency,
        through=through,
        tasks=len(suite.tasks),
        families=scores(suite, own, other),
        accuracy=accuracy(suite.tasks, own.answers),
        reference_accuracy=accuracy(suite.tasks, other.answers),
        agreement=agreement(suite.tasks, own.answers, other.answers),
        speed=speed(own),
        reference_speed=speed(other),
        least=least,
    )


async def _ask_once(client: httpx.AsyncClient, endpoint: Endpoint, task: Task, effort: Effort, clock: Clock) -> None:
    try:
        await _ask(client, endpoint, task, effort.max_tokens, clock)
    except httpx.HTTPStatusError as problem:
        line = " ".join(problem.response.text.split())[:200]
        what = f"answers {problem.response.status_code}: {line}"
        raise ConfigurationError(
            f"model {endpoint.model}", "", what, "check the key, the model's name and its log"
        ) from problem
    except (httpx.HTTPError, msgspec.MsgspecError, ValueError) as problem:
        what = f"does not answer: {type(problem).__name__} {problem}"[:200]
        raise ConfigurationError(f"model {endpoint.model}", "", what, "check the address, and see its log") from problem


async def _ask(client: httpx.AsyncClient, endpoint: Endpoint, task: Task, max_tokens: int, clock: Clock) -> Answered:
    body = {
        "model": endpoint.model,
        "messages": [{"role": turn.role, "content": turn.content} for turn in task.conversation],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    began_s = clock.monotonic_s()
    first_s: float | None = None
    chunks: list[_Chunk] = []
    async with client.stream("POST", f"{endpoint.base_url}/chat/completions", json=body) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            response.raise_for_status()
        by = response.headers.get("x-headgate-tier")
        if endpoint.tier is not None and by != endpoint.tier:
            raise ValueError(f"tier {by} answered in place of {endpoint.tier}")
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = msgspec.json.decode(line.removeprefix("data: "), type=_Chunk)
            if chunk.error is not None:
                raise ValueError(f"the stream ended with an error: {bytes(chunk.error)[:120].decode(errors='replace')}")
            chunks.append(chunk)
            if first_s is None and _text((chunk,)):
                first_s = clock.monotonic_s()
    return _answered(chunks, endpoint.price, ((first_s or clock.monotonic_s()) - began_s) * 1000)


def _answered(chunks: Sequence[_Chunk], price: Price | None, ttft_ms: float) -> Answered:
    counts = next((chunk.usage for chunk in reversed(chunks) if chunk.usage is not None), _TokenCounts())
    told = next((chunk.headgate for chunk in reversed(chunks) if chunk.headgate is not None), _Cost())
    if price is None:
        cost_nano_usd = int(Decimal(told.cost_usd) * NANO_PER_USD)
    else:
        cost_nano_usd = price.cost_nano_usd(Usage(counts.prompt_tokens, counts.completion_tokens))
    return Answered(_text(chunks), ttft_ms, counts.completion_tokens, cost_nano_usd)


def _text(chunks: Sequence[_Chunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
