"""What the supervisor must know of an engine: how to start it, how to tell that it is ready, what it can do."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

Precision = Literal["int4", "mxfp4", "int8", "fp8", "fp16", "bf16", "fp32"]
FULL_PRECISION = frozenset({"fp16", "bf16", "fp32"})
SingleTenant = Callable[[], bool]


def nobody_alone() -> bool:
    """Say that several tenants may use an engine."""
    return False


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """One engine as a recipe describes it.

    Attributes:
        name: the recipe's name, which every error line repeats.
        model: the name under which the engine serves its weights.
        model_dir: absolute folder of the weights.
        precision: what the weights are stored in; a launcher refuses a folder that holds something else.
        memory_bytes: what the engine may use at most, weights and KV cache together, as declared by the recipe.
        context_tokens: prompt and completion together.
        max_output_tokens: the most tokens of one completion.
        prefix_caching: whether the engine may reuse the KV cache of a common prefix.
        share_prefix_cache: whether it may do so across tenants, who could then time each other's prompts.
        start_timeout_s: how long loading and warming may take.
        drain_timeout_s: how long running requests may go on after a stop was asked for.
        expected_start_s: a first guess of the start time, replaced by what was measured.
        sleep_after_s: how long the engine may be idle before it gives its memory back, or None for never.
        port: a fixed loopback port, or None for any free one.
        devices: where the engine lives, `cpu` or `cuda:N`; the declared memory is spread evenly over them.
        options: what only this kind of engine understands.
    """

    name: str
    model: str
    model_dir: Path
    precision: Precision
    memory_bytes: int
    context_tokens: int
    max_output_tokens: int
    prefix_caching: bool = True
    share_prefix_cache: bool = False
    start_timeout_s: float = 120.0
    drain_timeout_s: float = 10.0
    expected_start_s: float = 5.0
    sleep_after_s: float | None = None
    port: int | None = None
    devices: tuple[str, ...] = ("cpu",)
    options: Mapping[str, object] = field(default_factory=dict)


def caches_prefixes(spec: EngineSpec, *, single_tenant: bool) -> bool:
    """Return whether an engine that cannot keep tenants' prefixes apart may cache them."""
    return spec.prefix_caching and (spec.share_prefix_cache or single_tenant)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a kind of engine can do.

    Attributes:
        health_path: answers 200 while the engine makes progress.
        isolates_prefixes: keeps the prefix caches of tenants apart (`cache_salt`).
        cancels_on_disconnect: stops generating when the client closes the connection.
        drains_on_sigterm: finishes running requests after SIGTERM.
        sleep_path: a POST there gives the device's memory back while the process stays; None where it cannot.
        wake_path: a POST there ends the sleep.
    """

    health_path: str
    isolates_prefixes: bool
    cancels_on_disconnect: bool
    drains_on_sigterm: bool
    sleep_path: str | None = None
    wake_path: str | None = None


class EngineLauncher(Protocol):
    """One way of running an engine as a child process that speaks the OpenAI API on a loopback port."""

    @property
    def spec(self) -> EngineSpec:
        """Return what the recipe says."""
        ...

    def command(self, port: int) -> tuple[str, ...]:
        """Return the argument vector, after checking whatever can be checked without starting.

        Raises:
            ConfigurationError: the weights are missing or not what the recipe declares.
        """
        ...

    def environment(self) -> dict[str, str]:
        """Return the whole environment of the child; nothing else is inherited."""
        ...

    def capabilities(self) -> Capabilities:
        """Return what this kind of engine can do."""
        ...
