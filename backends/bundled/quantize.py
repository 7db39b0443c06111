"""Quantise a model to INT4 on calibration prompts: OpenVINO IR by NNCF, or a checkpoint for vLLM by llm-compressor.

`PYTHON backends/bundled/quantize.py DIR --for openvino|vllm --out OUT --method awq --prompts FILE`, where PYTHON
belongs to the conversion environment, or has llm-compressor; DIR is what convert.py wrote at full precision, or a
Hugging Face folder; and FILE has one conversation a line, a list of `role` and `content`. Run by path it needs nothing
of the gateway. It fails closed: OUT appears whole or not at all. It never downloads and sends no usage telemetry; OUT
holds no prompt.
"""

import argparse
import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

GROUP_SIZE: Final = 128
MAX_TOKENS: Final = 1024
"""Of a longer prompt the end is used, where the model begins to answer."""
RECORD: Final = "quantization.json"
_IR: Final = "openvino_model.xml"
_QUIET: Final = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "true", "NNCF_CI": "1"}

Conversation = list[dict[str, str]]


class QuantizationError(Exception):
    """The model could not be quantised; the message is one line that names the cause and the mend."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be made; `partial` is where the weights go until they are whole."""

    source: Path
    partial: Path
    method: str
    group_size: int
    conversations: list[Conversation]


@dataclass(frozen=True, slots=True)
class Tool:
    """One library that quantises.

    Attributes:
        methods: AWQ scales salient columns by what the prompts excite (Lin et al. 2023); `rtn` only rounds.
        packages: whose versions are recorded.
        compress: carries an order out.
        mend: where the library is.
    """

    methods: tuple[str, ...]
    packages: tuple[str, ...]
    compress: Callable[[Order], None]
    mend: str


def quantize(tool: Tool, source: Path, out: Path, method: str, prompts_file: Path, group_size: int) -> None:
    """Write `source` with INT4 weights to `out`. Raises QuantizationError."""
    if out.exists():
        raise QuantizationError(f"{out}: exists already; remove it or give another --out")
    if method not in tool.methods:
        raise QuantizationError(f"--method {method}: unknown here; choose one of {', '.join(tool.methods)}")
    conversations = _conversations(prompts_file)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        tool.compress(Order(source, partial, method, group_size, conversations))
        _record(tool, partial, method, prompts_file, len(conversations), group_size)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _conversations(file: Path) -> list[Conversation]:
    try:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as problem:
        raise QuantizationError(f"{file}: cannot be read: {problem}") from problem
    if not lines:
        raise QuantizationError(f"{file}: has no prompts; export some")
    return lines


def _token_ids(tokenizer: Any, conversation: Conversation) -> list[int]:
    """Return the end of a prompt as the model reads it, its chat template applied."""
    text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"][-MAX_TOKENS:]
    return ids


def _compress_ir(order: Order) -> None:
    """Compress the weights of an OpenVINO IR by NNCF; `awq` comes with scale estimation."""
    import nncf
    import openvino
    from nncf.quantization.advanced_parameters import AdvancedCompressionParameters, GroupSizeFallbackMode

    if not (order.source / _IR).is_file():
        raise QuantizationError(f"{order.source}: no {_IR}; convert the model at full precision first")
    shutil.copytree(order.source, order.partial, ignore=shutil.ignore_patterns("openvino_model.*"))
    model, method = openvino.Core().read_model(order.source / _IR), order.method
    samples = _samples(order, {name for port in model.inputs for name in port.get_names()})
    try:
        compressed = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT4_ASYM,
            group_size=order.group_size,
            dataset=nncf.Dataset(samples) if samples else None,
            subset_size=max(1, len(samples)),
            awq=method == "awq" or None,
            scale_estimation=method in ("awq", "scale-estimation") or None,
            gptq=method == "gptq" or None,
            advanced_parameters=AdvancedCompressionParameters(group_size_fallback_mode=GroupSizeFallbackMode.ADJUST),
        )
    except (RuntimeError, ValueError) as problem:
        raise QuantizationError(f"{order.source}: NNCF failed: {_one_line(problem)}") from problem
    openvino.save_model(compressed, order.partial / _IR, compress_to_fp16=False)
    _correct_conversion(order)


def _samples(order: Order, inputs: set[str]) -> list[dict[str, Any]]:
    """Return what the model is fed with each prompt; nothing where the method looks at none."""
    import numpy as np
    from transformers import AutoTokenizer

    if order.method == "rtn":
        return []
    tokenizer = AutoTokenizer.from_pretrained(order.source, local_files_only=True)
    samples = []
    for conversation in order.conversations:
        ids = np.array([_token_ids(tokenizer, conversation)], np.int64)
        fed = {
            "input_ids": ids,
            "attention_mask": np.ones_like(ids),
            "position_ids": np.arange(ids.shape[1], dtype=np.int64)[None],
            "beam_idx": np.zeros(1, np.int32),
        }
        samples.append({name: value for name, value in fed.items() if name in inputs})
    return samples


def _correct_conversion(order: Order) -> None:
    """Say the new precision in what convert.py wrote, which was copied along."""
    file = order.partial / "conversion.json"
    if file.is_file():
        content = {**json.loads(file.read_text()), "precision": "int4", "group_size": order.group_size}
        file.write_text(json.dumps(content, indent=2) + "\n")


def _compress_checkpoint(order: Order) -> None:
    """Make a compressed-tensors checkpoint with INT4 weights and 16-bit activations by llm-compressor."""
    from datasets import Dataset
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(order.source, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(order.source, local_files_only=True, torch_dtype="auto")
        prompts = [_token_ids(tokenizer, conversation) for conversation in order.conversations]
        oneshot(
            model=model,
            tokenizer=tokenizer,
            dataset=Dataset.from_list([{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in prompts]),
            recipe=[_modifier(order.method, order.group_size)],
            max_seq_length=MAX_TOKENS,
            num_calibration_samples=len(prompts),
        )
        model.save_pretrained(order.partial, save_compressed=True)
        tokenizer.save_pretrained(order.partial)
    except (OSError, ValueError, RuntimeError) as problem:
        raise QuantizationError(f"{order.source}: llm-compressor failed: {_one_line(problem)}") from problem


def _modifier(method: str, group_size: int) -> Any:
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor.modifiers.awq import AWQModifier
    from llmcompressor.modifiers.quantization import GPTQModifier, QuantizationModifier

    kinds = {"awq": AWQModifier, "gptq": GPTQModifier, "rtn": QuantizationModifier}
    weights = QuantizationArgs(
        num_bits=4, type="int", strategy="group", group_size=group_size, symmetric=method != "awq"
    )
    scheme = QuantizationScheme(targets=["Linear"], weights=weights)
    return kinds[method](config_groups={"group_0": scheme}, ignore=["lm_head"])


TOOLS: Final = {
    "openvino": Tool(
        ("awq", "scale-estimation", "gptq", "rtn"),
        ("nncf", "openvino", "transformers"),
        _compress_ir,
        "run it with the conversion environment's Python",
    ),
    "vllm": Tool(
        ("awq", "gptq", "rtn"),
        ("llmcompressor", "compressed-tensors", "transformers", "torch"),
        _compress_checkpoint,
        "install llmcompressor in an environment of its own, and name its Python with --python",
    ),
}
"""By the kind of engine that serves what is made."""


def _record(tool: Tool, out: Path, method: str, prompts_file: Path, prompts: int, group_size: int) -> None:
    """Say how the weights were made: the mark by which the gateway asks for an evaluation before they take traffic."""
    record = {
        "precision": "int4",
        "method": method,
        "group_size": group_size,
        "prompts": 0 if method == "rtn" else prompts,
        "prompts_digest": f"sha256:{hashlib.sha256(prompts_file.read_bytes()).hexdigest()}",
        "versions": {package: importlib.metadata.version(package) for package in tool.packages},
    }
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def _one_line(problem: Exception) -> str:
    return " ".join(str(problem).split())[:300]


def main(argv: Sequence[str] | None = None) -> int:
    """Quantise one directory; return 0, or 1 after one line on stderr."""
    os.environ.update(_QUIET)
    parser = argparse.ArgumentParser(description="Quantise a model on calibration prompts.")
    parser.add_argument("source", type=Path, metavar="DIR")
    parser.add_argument("--for", dest="engine", choices=sorted(TOOLS), required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="awq")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--group-size", type=int, default=GROUP_SIZE)
    args = parser.parse_args(argv)
    tool = TOOLS[args.engine]
    try:
        quantize(tool, args.source.resolve(), args.out.resolve(), args.method, args.prompts, args.group_size)
    except QuantizationError as error:
        print(f"headgate models quantize: {error}", file=sys.stderr)
        return 1
    except ImportError as error:
        print(f"headgate models quantize: {error}; {tool.mend}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
