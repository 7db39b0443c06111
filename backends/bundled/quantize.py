"""Quantise an OpenVINO model to INT4 on calibration prompts, by NNCF's data-aware methods.

`PYTHON backends/bundled/quantize.py DIR --out OUT --method awq --prompts FILE`, where PYTHON belongs to the conversion
environment, DIR is what convert.py wrote at full precision, and FILE has one conversation a line, a list of `role` and
`content`. Run by path it needs nothing of the gateway. It fails closed: OUT appears whole or not at all. It never
downloads and sends no usage telemetry; OUT holds no prompt.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

METHODS: Final = ("awq", "scale-estimation", "gptq", "rtn")
"""AWQ scales salient columns by what the prompts excite (Lin et al. 2023), with scale estimation; `rtn` only rounds."""
GROUP_SIZE: Final = 128
MAX_TOKENS: Final = 1024
"""Of a longer prompt the end is used, where the model begins to answer."""
RECORD: Final = "quantization.json"
_MODEL: Final = "openvino_model.xml"
_PACKAGES: Final = ("nncf", "openvino", "transformers")
_QUIET: Final = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "true", "NNCF_CI": "1"}


class QuantizationError(Exception):
    """The model could not be quantised; the message is one line that names the cause and the mend."""


def quantize(source: Path, out: Path, method: str, prompts_file: Path, group_size: int = GROUP_SIZE) -> None:
    """Write `source` with INT4 weights to `out`. Raises QuantizationError."""
    if not (source / _MODEL).is_file():
        raise QuantizationError(f"{source}: no {_MODEL}; convert the model at full precision first")
    if out.exists():
        raise QuantizationError(f"{out}: exists already; remove it or give another --out")
    prompts = _prompts(prompts_file)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(source, partial, ignore=shutil.ignore_patterns("openvino_model.*"))
        _compress(source, partial, method, prompts, group_size)
        _record(partial, method, prompts_file, len(prompts), group_size)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _prompts(file: Path) -> list[list[dict[str, str]]]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as problem:
        raise QuantizationError(f"{file}: cannot be read: {problem}") from problem
    if not lines:
        raise QuantizationError(f"{file}: has no prompts; export some")
    return lines


def _compress(source: Path, out: Path, method: str, prompts: Sequence[list[dict[str, str]]], group_size: int) -> None:
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

    model = openvino.Core().read_model(source / _MODEL)
    inputs = {name for port in model.inputs for name in port.get_names()}
    samples = [_sample(source, conversation, inputs) for conversation in prompts] if method != "rtn" else []
    try:
        compressed = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=group_size,
            dataset=nncf.Dataset(samples) if samples else None,
            subset_size=max(1, len(samples)),
            awq=method == "awq" or None,
            scale_estimation=method in ("awq", "scale-estimation") or None,
            gptq=method == "gptq" or None,
            advanced_parameters=AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST),
        )
    except (RuntimeError, ValueError) as problem:
        raise QuantizationError(f"{source}: NNCF failed: {' '.join(str(problem).split())[:300]}") from problem
    openvino.save_model(compressed, out / _MODEL, compress_to_fp16=False)


def _sample(source: Path, conversation: list[dict[str, str]], inputs: set[str]) -> dict[str, Any]:
    """Return what the model is fed with one prompt, its chat template applied."""
    import numpy as np

    text = _tokenizer(source).apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    ids = np.array([_tokenizer(source)(text, add_special_tokens=False)["input_ids"][-MAX_TOKENS:]], np.int64)
    fed = {
        "input_ids": ids,
        "attention_mask": np.ones_like(ids),
        "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
        "beam_idx": np.zeros(1, np.int32),
    }
    return {name: value for name, value in fed.items() if name in inputs}


_loaded: dict[Path, Any] = {}


def _tokenizer(source: Path) -> Any:
    from transformers import AutoTokenizer

    if source not in _loaded:
        _loaded[source] = AutoTokenizer.from_pretrained(source, local_files_only=True)
    return _loaded[source]


def _record(out: Path, method: str, prompts_file: Path, prompts: int, group_size: int) -> None:
    """Say how the weights were made: the mark by which the gateway asks for an evaluation before they take traffic."""
    record = {
        "precision": "int4",
        "method": method,
        "group_size": group_size,
        "prompts": 0 if method == "rtn" else prompts,
        "prompts_digest": f"sha256:{hashlib.sha256(prompts_file.read_bytes()).hexdigest()}",
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n")
    conversion = out / "conversion.json"
    if conversion.is_file():
        content = {**json.loads(conversion.read_text()), "precision": "int4", "group_size": group_size}
        conversion.write_text(json.dumps(content, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Quantise one directory; return 0, or 1 after one line on stderr."""
    os.environ.update(_QUIET)
    parser = argparse.ArgumentParser(description="Quantise an OpenVINO model on calibration prompts.")
    parser.add_argument("source", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, default="awq")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--group-size", type=int, default=GROUP_SIZE)
    args = parser.parse_args(argv)
    try:
        quantize(args.source.resolve(), args.out.resolve(), args.method, args.prompts, args.group_size)
    except QuantizationError as error:
        print(f"headgate models quantize: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"headgate models quantize: {error}; run it with the conversion environment's Python", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
