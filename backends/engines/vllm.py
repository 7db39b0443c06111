"""Launches vLLM, from its own environment or container, never a dependency of the gateway: recipe to command line.

Flags are those of vLLM 0.32 (`vllm serve --help`). Telemetry is off; the server listens on loopback only, which its
development mode (needed for sleeping) requires.
"""

import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from backends.engines.bare_environment import QUIET, inherited_environment, visible_devices
from backends.engines.container import Container
from backends.engines.devices import DeviceBytes, memory_ratio
from backends.engines.launcher import Capabilities, EngineSpec, SingleTenant, nobody_alone
from backends.engines.model_files import HALF, check_precision, hugging_face_precision
from backends.engines.options import parse_options
from backends.engines.weights_store import resolve_weights
from core.errors import ConfigurationError

Count = Annotated[int, Meta(ge=1)]
GIB = 1 << 30
DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
ONLINE = frozenset({"fp8", "fp8_per_tensor", "fp8_per_block"})
"""Quantisations that vLLM makes from unquantised weights while it loads them."""
SILENT = {"VLLM_NO_USAGE_STATS": "1", "VLLM_DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0"}

Quantization = Literal[
    "awq", "awq_marlin", "gptq", "gptq_marlin", "auto_awq", "auto_gptq", "compressed-tensors",
    "fp8", "fp8_per_tensor", "fp8_per_block", "torchao", "modelopt", "mxfp4",
]  # fmt: skip


class _Options(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe for vLLM; `speculative` and `generation` are passed on as JSON."""

    executable: str = "vllm"
    container: str | None = None
    container_runtime: Literal["docker", "podman"] = "docker"
    quantization: Quantization | None = None
    kv_cache_dtype: str | None = None
    kv_cache_memory_bytes: Count | None = None
    speculative: dict[str, object] | None = None
    generation: dict[str, object] | None = None
    tensor_parallel: Count = 1
    pipeline_parallel: Count = 1
    data_parallel: Count = 1
    executor: Literal["mp", "ray"] | None = None
    ray_address: str | None = None
    nodes: Count = 1
    node_rank: Annotated[int, Meta(ge=0)] = 0
    master_addr: str | None = None
    master_port: Count | None = None
    max_running: Count = 128
    max_queued: Annotated[int, Meta(ge=0)] = 512
    max_queued_tokens: Count | None = None
    batch_tokens: Count | None = None
    scheduling: Literal["fcfs", "priority"] | None = None
    performance_mode: Literal["balanced", "interactivity", "throughput"] | None = None
    load_format: str | None = None
    sleep_mode: bool = False
    eager: bool = False
    tool_call_parser: str | None = None
    reasoning_parser: str | None = None
    arguments: list[str] = []
    environment: dict[str, str] = {}


class VllmLauncher:
    """Runs `vllm serve` for one recipe; prefixes of tenants are kept apart by `cache_salt`."""

    def __init__(
        self, spec: EngineSpec, device_bytes: DeviceBytes, *, single_tenant: SingleTenant = nobody_alone
    ) -> None:
        """Check the options.

        Args:
            spec: the recipe.
            device_bytes: returns the memory of a device such as `cuda:0`; it may raise ConfigurationError.
            single_tenant: unused, since vLLM keeps tenants apart.

        Raises:
            ConfigurationError: an option is unknown, of the wrong kind, or contradicts another.
        """
        self._spec = spec
        self._device_bytes = device_bytes
        self._options = parse_options(spec, _Options)
        self._check_parallel()

    @property
    def spec(self) -> EngineSpec:
        """Return what the recipe says."""
        return self._spec

    def command(self, port: int) -> tuple[str, ...]:
        """Return the argument vector of `vllm serve`, inside a container where the recipe names one.

        Raises:
            ConfigurationError: vLLM is not there, or the weights are missing or of another precision.
        """
        spec, options = self._spec, self._options
        self._check_weights()
        if options.container is None:
            program = shutil.which(os.path.expanduser(options.executable))
            if program is None:
                mend = "install vLLM in an environment of its own and name its program, or name a container"
                raise self._error("options.executable", f"{options.executable} is not there", mend)
            return (program, "serve", str(spec.model_dir), *self._arguments("127.0.0.1", port))
        container = Container(options.container, options.container_runtime, spec)
        return container.command(port, self._own_environment(), (container.MODEL, *self._arguments("0.0.0.0", port)))  # noqa: S104

    def environment(self) -> dict[str, str]:
        """Return an environment without secrets and telemetry, in which only the recipe's devices are seen."""
        options = self._options
        if options.container is not None:
            return Container(options.container, options.container_runtime, self._spec).environment()
        return self._own_environment()

    def _own_environment(self) -> dict[str, str]:
        options, spec = self._options, self._spec
        more = {"VLLM_SERVER_DEV_MODE": "1"} if options.sleep_mode else {}
        if options.ray_address is not None:
            more["RAY_ADDRESS"] = options.ray_address
        if spec.devices == ("cpu",):
            more["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, spec.memory_bytes // 2 // GIB))
        return inherited_environment() | QUIET | SILENT | visible_devices(spec) | more | options.environment

    def capabilities(self) -> Capabilities:
        """Return what vLLM can do."""
        return Capabilities(
            health_path="/health",
            isolates_prefixes=True,
            cancels_on_disconnect=True,
            drains_on_sigterm=True,
            sleep_path="/sleep?level=1" if self._options.sleep_mode else None,
            wake_path="/wake_up" if self._options.sleep_mode else None,
        )

    def _arguments(self, host: str, port: int) -> tuple[str, ...]:
        given = (*self._serving(host, port), *self._loading(), *self._limits(), *self._spreading())
        named = tuple(f"--{name}={value}" for name, value in given if value is not None)
        return (*named, *self._flags(), *self._options.arguments)

    def _serving(self, host: str, port: int) -> Iterator[tuple[str, object]]:
        yield "host", host
        yield "port", port
        yield "served-model-name", self._spec.model
        yield "shutdown-timeout", max(1, round(self._spec.drain_timeout_s))
        yield "tool-call-parser", self._options.tool_call_parser
        yield "reasoning-parser", self._options.reasoning_parser
        generation = {"max_new_tokens": self._spec.max_output_tokens} | (self._options.generation or {})
        yield "override-generation-config", _json(generation)

    def _loading(self) -> Iterator[tuple[str, object]]:
        spec, options = self._spec, self._options
        yield "dtype", DTYPES.get(spec.precision, "auto")
        yield "quantization", options.quantization
        yield "kv-cache-dtype", options.kv_cache_dtype
        yield "load-format", options.load_format
        yield (
            "speculative-config",
            None if options.speculative is None else _json(self._speculation(options.speculative)),
        )

    def _limits(self) -> Iterator[tuple[str, object]]:
        spec, options = self._spec, self._options
        yield "max-model-len", spec.context_tokens
        if spec.devices != ("cpu",):
            yield "gpu-memory-utilization", memory_ratio(spec, self._device_bytes)
        yield "kv-cache-memory-bytes", options.kv_cache_memory_bytes
        yield "max-num-seqs", options.max_running
        yield "max-num-batched-tokens", options.batch_tokens
        yield "max-num-queued-reqs", options.max_running * options.data_parallel + options.max_queued
        yield "max-num-queued-tokens", options.max_queued_tokens
        yield "scheduling-policy", options.scheduling
        yield "performance-mode", options.performance_mode

    def _spreading(self) -> Iterator[tuple[str, object]]:
        options = self._options
        yield "tensor-parallel-size", options.tensor_parallel
        yield "pipeline-parallel-size", options.pipeline_parallel
        yield "data-parallel-size", options.data_parallel if options.data_parallel > 1 else None
        yield "distributed-executor-backend", options.executor
        if options.nodes > 1:
            yield "nnodes", options.nodes
            yield "node-rank", options.node_rank
            yield "master-addr", options.master_addr
            yield "master-port", options.master_port

    def _flags(self) -> Iterator[str]:
        """Prefixes are cached unless the recipe says no: `cache_salt` keeps tenants apart."""
        yield "--enable-prefix-caching" if self._spec.prefix_caching else "--no-enable-prefix-caching"
        yield "--disable-uvicorn-access-log"
        if self._options.sleep_mode:
            yield "--enable-sleep-mode"
        if self._options.eager:
            yield "--enforce-eager"
        if self._options.tool_call_parser is not None:
            yield "--enable-auto-tool-choice"

    def _speculation(self, wanted: Mapping[str, object]) -> Mapping[str, object]:
        """Return vLLM's settings with the draft model's path in full."""
        model = wanted.get("model")
        if not isinstance(model, str):
            return wanted
        if self._options.container is not None:
            mend = "run vLLM from its own environment, or use a method without a model"
            raise self._error("options.speculative", "names a model that is not inside the container", mend)
        return {**wanted, "model": str(resolve_weights(model, self._spec.model_dir))}

    def _check_weights(self) -> None:
        spec, quantization = self._spec, self._options.quantization
        found = hugging_face_precision(spec.model_dir, spec.name)
        if found in HALF and spec.precision == "fp8" and quantization in ONLINE:
            return
        check_precision(spec.precision, found, spec.model_dir, spec.name)

    def _check_parallel(self) -> None:
        options = self._options
        wanted = options.tensor_parallel * options.pipeline_parallel * options.data_parallel
        spread = options.executor == "ray" or options.nodes > 1
        if not spread and self._spec.devices != ("cpu",) and wanted != len(self._spec.devices):
            problem = f"names {len(self._spec.devices)}, but the parallel sizes need {wanted}"
            mend = "name as many devices, or use `executor: ray` for several machines"
            raise self._error("devices", problem, mend)
        if options.nodes > 1 and (options.master_addr is None or options.node_rank >= options.nodes):
            mend = "name the first machine's address, and a rank below nodes"
            raise self._error("options.master_addr", "is needed with several nodes", mend)

    def _error(self, key: str, problem: str, mend: str) -> ConfigurationError:
        return ConfigurationError(f"recipe {self._spec.name}", key, problem, mend)


def _json(value: Mapping[str, object]) -> str:
    return msgspec.json.encode(value).decode()
