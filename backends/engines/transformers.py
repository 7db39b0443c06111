"""Launches the transformers worker: for machines with torch and no other engine, on CPU or one CUDA device."""

import importlib.util
from typing import Literal

from backends.engines.launcher import EngineSpec, SingleTenant, nobody_alone
from backends.engines.model_files import HALF, check_precision, hugging_face_precision
from backends.engines.options import parse_options
from backends.engines.worker_launcher import WorkerLauncher, WorkerOptions


class _Options(WorkerOptions, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe for this engine; see `transformers_server --help`."""

    page_tokens: int = 32
    attention: Literal["sdpa", "paged|eager", "flash_attention_2", "flash_attention_3"] = "sdpa"


class TransformersLauncher(WorkerLauncher):
    """Runs `backends.engines.transformers_server` for one recipe."""

    MODULE = "backends.engines.transformers_server"

    def __init__(self, spec: EngineSpec, *, single_tenant: SingleTenant = nobody_alone) -> None:
        """Check the options; raises ConfigurationError when one is unknown or of the wrong kind."""
        super().__init__(spec, parse_options(spec, _Options), single_tenant)
        if len(spec.devices) != 1:
            mend = "name one device, or use the engine vllm for several"
            raise self._error("devices", "transformers runs on one device", mend)

    def _arguments(self) -> dict[str, object]:
        spec = self._spec
        return super()._arguments() | {
            "device": "cpu" if spec.devices == ("cpu",) else "cuda",
            "precision": spec.precision if spec.precision in HALF else None,
            "memory_bytes": spec.memory_bytes,
        }

    def _check(self) -> None:
        spec = self._spec
        if importlib.util.find_spec("transformers") is None or importlib.util.find_spec("torch") is None:
            mend = "install torch and transformers beside headgate"
            raise self._error("engine", "transformers is not installed", mend)
        found = hugging_face_precision(spec.model_dir, spec.name)
        check_precision(spec.precision, found, spec.model_dir, spec.name)
