"""Measures what a token costs on a hosted engine: two workloads over HTTP, and the CPU time that they took.

One workload has long prompts and one output token, the other short prompts and long answers; least squares over a few
stretches of both tell input from output. Prompts are random numbers, so that nothing is read from a prefix cache.
"""

import asyncio
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import httpx
import msgspec

from backends.engines.cpu_time import group_cpu_s
from backends.engines.devices import CPU, device_bytes, gpu_count
from backends.engines.kinds import engine_version, launcher_of
from backends.engines.recipes import Recipe
from backends.engines.supervisor import Supervisor
from backends.engines.weights_digest import weights_digest
from core.clock import Clock
from core.errors import ConfigurationError
from gateway.hosting.one_engine import engine_failure, one_engine
from policies.measured_price import MeasuredPrice, Sample, check_hourly_usd, cpu_s_per_m

SAMPLES_OF_EACH = 3
SAMPLE_LIMIT_S = 60.0
"""A stretch ends then, however little CPU time it took."""
ANSWER_TIMEOUT_S = 120.0
MAX_PROMPT_TOKENS = 2048
MAX_ANSWER_TOKENS = 128
SHORT_WORDS = 8
SEED = 20261


@dataclass(frozen=True, slots=True)
class Effort:
    """How the measurement is made.

    Attributes:
        concurrency: requests at a time.
        cpu_s: CPU seconds of one stretch at least; with clock ticks of 10 ms, one second is exact to 1 %.
    """

    concurrency: int = 8
    cpu_s: float = 1.0


@dataclass(frozen=True, slots=True)
class _Workload:
    words: int
    answer_tokens: int


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int


class _Answer(msgspec.Struct, frozen=True):
    usage: _Usage


async def measure(
    recipe: Recipe, hourly_usd: Decimal, effort: Effort, state_dir: Path, clock: Clock
) -> tuple[MeasuredPrice, tuple[Sample, ...]]:
    """Start the recipe's engine on a free port, measure it, and stop it.

    Args:
        recipe: what to measure.
        hourly_usd: what the whole machine costs an hour.
        effort: how much work.
        state_dir: an empty folder of its own, so that a gateway which runs the same recipe is left alone.
        clock: for the time of the measurement.

    Raises:
        ConfigurationError: the engine does not start or fails, or the figures say nothing.
    """
    check_hourly_usd(hourly_usd, f"recipe {recipe.name}", "hourly_usd")
    spec = replace(recipe.spec, port=None)
    digest = weights_digest(spec.model_dir, recipe.name)
    launcher = launcher_of(replace(recipe, spec=spec), device_bytes)
    async with one_engine(launcher, state_dir, clock) as supervisor:
        samples = await _Bench(recipe, supervisor, effort, clock).samples()
    try:
        per_m_input, per_m_output = cpu_s_per_m(samples)
    except ValueError as problem:
        mend = "measure again while the machine is quiet"
        raise ConfigurationError(f"recipe {recipe.name}", "", str(problem), mend) from problem
    measured = MeasuredPrice(
        recipe=recipe.name,
        engine=engine_version(recipe.engine),
        precision=spec.precision,
        weights_digest=digest,
        measured_at=clock.now().replace(microsecond=0),
        hourly_usd=hourly_usd,
        cores=_units(spec.devices),
        concurrency=effort.concurrency,
        cpu_s_per_m_input=per_m_input,
        cpu_s_per_m_output=per_m_output,
        unit="core" if CPU in spec.devices else "device",
    )
    return measured, samples


def _units(devices: Sequence[str]) -> int:
    """Return how many cores, or GPUs where the engine runs on those, the whole machine has."""
    return (os.cpu_count() or 1) if CPU in devices else max(gpu_count(), len(devices))


class _Bench:
    """Puts work on one ready engine."""

    def __init__(self, recipe: Recipe, supervisor: Supervisor, effort: Effort, clock: Clock) -> None:
        self._recipe = recipe
        self._supervisor = supervisor
        self._effort = effort
        self._clock = clock
        self._random = random.Random(SEED)  # noqa: S311 - makes prompts, guards nothing

    async def samples(self) -> tuple[Sample, ...]:
        """Warm up, then measure both workloads in turn."""
        name = self._recipe.name
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=ANSWER_TIMEOUT_S) as client:
                workloads = (await self._long_prompts(client), self._long_answers())
                for workload in workloads:
                    await self._round(client, workload)
                return tuple([await self._sample(client, one) for _ in range(SAMPLES_OF_EACH) for one in workloads])
        except httpx.HTTPError as problem:
            raise engine_failure(name, f"the engine failed meanwhile: {type(problem).__name__} {problem}") from problem
        except msgspec.MsgspecError as problem:
            raise engine_failure(name, f"the engine's answer has no usage: {problem}") from problem
        except ProcessLookupError as problem:
            raise engine_failure(name, f"its CPU time cannot be read: {problem}") from problem

    async def _long_prompts(self, client: httpx.AsyncClient) -> _Workload:
        """Fill three quarters of the context, counting with what two shorter prompts took."""
        context = self._recipe.spec.context_tokens
        few, many = max(1, context // 64), max(2, context // 16)
        took_few = (await self._ask(client, _Workload(few, 1))).prompt_tokens
        took_many = (await self._ask(client, _Workload(many, 1))).prompt_tokens
        per_word = max(1.0, (took_many - took_few) / (many - few))
        wanted = min(MAX_PROMPT_TOKENS, context * 3 // 4)
        return _Workload(max(many, int((wanted - took_few) / per_word) + few), 1)

    def _long_answers(self) -> _Workload:
        spec = self._recipe.spec
        return _Workload(SHORT_WORDS, min(MAX_ANSWER_TOKENS, spec.max_output_tokens, max(1, spec.context_tokens // 2)))

    async def _sample(self, client: httpx.AsyncClient, workload: _Workload) -> Sample:
        began_s, group = self._clock.monotonic_s(), self._supervisor.group
        if group is None:
            raise ProcessLookupError("the engine is not running any more")
        before = self._work_s(group)
        inputs = outputs = 0
        cpu_s = Fraction()
        while cpu_s < self._effort.cpu_s and self._clock.monotonic_s() - began_s < SAMPLE_LIMIT_S:
            for usage in await self._round(client, workload):
                inputs += usage.prompt_tokens
                outputs += usage.completion_tokens
            cpu_s = self._work_s(group) - before
        return Sample(inputs, outputs, cpu_s)

    def _work_s(self, group: int) -> Fraction:
        """Return the engine's CPU seconds; on GPUs the seconds of all of them, which are its own while it works."""
        devices = self._recipe.spec.devices
        return group_cpu_s(group) if CPU in devices else Fraction(self._clock.monotonic_s()) * len(devices)

    async def _round(self, client: httpx.AsyncClient, workload: _Workload) -> list[_Usage]:
        asking = (self._ask(client, workload) for _ in range(self._effort.concurrency))
        return await asyncio.gather(*asking)

    async def _ask(self, client: httpx.AsyncClient, workload: _Workload) -> _Usage:
        spec = self._recipe.spec
        words = " ".join(str(self._random.randrange(100, 1000)) for _ in range(workload.words))
        body = {
            "model": spec.model,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": workload.answer_tokens,
            "temperature": 0,
            "ignore_eos": True,
        }
        url = self._supervisor.base_url
        if url is None:
            raise engine_failure(spec.name, self._supervisor.last_error or "the engine is not ready any more")
        answer = await client.post(f"{url}/chat/completions", json=body)
        answer.raise_for_status()
        return msgspec.json.decode(answer.content, type=_Answer).usage
