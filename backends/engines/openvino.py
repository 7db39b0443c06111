"""Launches the OpenVINO worker: checks the weights, then builds its command line and its bare environment."""

import importlib.util
import re
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from backends.engines.launcher import EngineSpec, Precision, SingleTenant, nobody_alone
from backends.engines.options import parse_options
from backends.engines.weights_store import resolve_weights
from backends.engines.worker_launcher import WorkerLauncher, WorkerOptions
from core.errors import ConfigurationError

NEEDED_FILES = ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "config.json")
WEIGHTS = re.compile(rb'element_type="(\w+)" shape="[^"]*" offset="\d+" size="(\d+)"')
BITS = {"u4": 4, "i4": 4, "nf4": 4, "u8": 8, "i8": 8, "f16": 16, "bf16": 16, "f32": 32}
STORED_AS: dict[str, Precision] = {
    "u4": "int4",
    "i4": "int4",
    "nf4": "int4",
    "u8": "int8",
    "i8": "int8",
    "f16": "fp16",
    "bf16": "bf16",
    "f32": "fp32",
}


class _Options(WorkerOptions, forbid_unknown_fields=True, frozen=True):
    """The `options` of a recipe for this engine; see `openvino_server --help`."""

    max_running: int = 64
    inference_precision: Literal["f32", "f16", "bf16"] | None = None
    kv_cache_precision: Literal["u8", "f16", "bf16", "f32"] | None = None
    draft_weights: str | None = None
    prompt_lookup: Annotated[int, msgspec.Meta(ge=1, le=32)] | None = None
    guessed_tokens: Annotated[int, msgspec.Meta(ge=1, le=32)] = 4


class OpenVinoLauncher(WorkerLauncher):
    """Runs `backends.engines.openvino_server` for one recipe."""

    MODULE = "backends.engines.openvino_server"

    def __init__(self, spec: EngineSpec, *, single_tenant: SingleTenant = nobody_alone) -> None:
        """Check the options; raises ConfigurationError when one is unknown, of the wrong kind, or excludes another."""
        self._options = parse_options(spec, _Options)
        super().__init__(spec, self._options, single_tenant)
        if self._options.draft_weights is not None and self._options.prompt_lookup is not None:
            raise self._error("options.prompt_lookup", "cannot be combined with draft_weights", "keep one of them")

    def _arguments(self) -> dict[str, object]:
        arguments = super()._arguments()
        del arguments["draft_weights"]
        return arguments | {"draft_model_dir": self._draft_dir()}

    def _draft_dir(self) -> Path | None:
        """Return the folder of the draft model; a relative one starts beside the weights."""
        if self._options.draft_weights is None:
            return None
        folder = resolve_weights(self._options.draft_weights, self._spec.model_dir)
        _refuse_missing(folder, f"recipe {self._spec.name}", "options.draft_weights")
        return folder

    def _check(self) -> None:
        model_dir = self._spec.model_dir
        if importlib.util.find_spec("openvino_genai") is None:
            raise self._error("engine", "OpenVINO GenAI is not installed", "install headgate[engine]")
        _refuse_missing(model_dir, f"recipe {self._spec.name}", "weights")
        found = stored_precision(model_dir / "openvino_model.xml")
        if found != self._spec.precision:
            problem = f"says {self._spec.precision}, but {model_dir} holds {found} weights"
            raise self._error("precision", problem, f"write `precision: {found}`, or convert the model again")


def _refuse_missing(model_dir: Path, recipe: str, key: str) -> None:
    missing = next((file for file in NEEDED_FILES if not (model_dir / file).is_file()), None)
    if missing is not None:
        what = f"{model_dir} has no {missing}" if model_dir.is_dir() else f"the folder {model_dir} does not exist"
        raise ConfigurationError(recipe, key, what, "correct the path, or make it with `headgate models convert`")


def stored_precision(model_xml: Path) -> Precision:
    """Return the type of most weights of an OpenVINO IR, by number of elements."""
    elements: Counter[Precision] = Counter()
    for kind, size in WEIGHTS.findall(model_xml.read_bytes()):
        name = kind.decode()
        if name in BITS:
            elements[STORED_AS[name]] += int(size) * 8 // BITS[name]
    return elements.most_common(1)[0][0] if elements else "fp32"
