"""Quantise a Hugging Face model to a compressed-tensors INT4 checkpoint, which vLLM serves, by llm-compressor.

`PYTHON backends/bundled/quantize_compressed.py DIR --out OUT --method awq --prompts FILE`, where PYTHON has
llm-compressor and FILE has one conversation a line. Run by path it needs nothing of the gateway; OUT appears whole or
not at all, and holds no prompt.
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

METHODS: Final = ("awq", "gptq", "rtn")
MAX_TOKENS: Final = 1024
GROUP_SIZE: Final = 128
RECORD: Final = "quantization.json"
_PACKAGES: Final = ("llmcompressor", "compressed-tensors", "transformers", "torch")
_QUIET: Final = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def quantize(source: Path, out: Path, method: str, prompts_file: Path, group_size: int = GROUP_SIZE) -> None:
    """Write `source` with INT4 weights and 16-bit activations to `out`.

    Raises:
        FileExistsError: `out` is there already.
    """
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if out.exists():
        raise FileExistsError(f"{out}: exists already; remove it or give another --out")
    tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(source, local_files_only=True, torch_dtype="auto")
    lines = [json.loads(line) for line in prompts_file.read_text(encoding="utf-8").splitlines() if line.strip()]
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        oneshot(
            model=model,
            tokenizer=tokenizer,
            dataset=_dataset(tokenizer, lines),
            recipe=[_modifier(method, group_size)],
            max_seq_length=MAX_TOKENS,
            num_calibration_samples=len(lines),
        )
        model.save_pretrained(partial, save_compressed=True)
        tokenizer.save_pretrained(partial)
        _record(partial, method, prompts_file, len(lines), group_size)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _dataset(tokenizer: Any, conversations: Sequence[list[dict[str, str]]]) -> Any:
    from datasets import Dataset

    rows = []
    for conversation in conversations:
        text = tokenizer.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(text, add_special_tokens=False)["input_ids"][-MAX_TOKENS:]
        rows.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
    return Dataset.from_list(rows)


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


def _record(out: Path, method: str, prompts_file: Path, prompts: int, group_size: int) -> None:
    record = {
        "precision": "int4",
        "method": method,
        "group_size": group_size,
        "prompts": 0 if method == "rtn" else prompts,
        "prompts_digest": f"sha256:{hashlib.sha256(prompts_file.read_bytes()).hexdigest()}",
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    (out / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Quantise one directory; return 0, or 1 after one line on stderr."""
    os.environ.update(_QUIET)
    parser = argparse.ArgumentParser(description="Quantise a Hugging Face model for vLLM.")
    parser.add_argument("source", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", choices=METHODS, default="awq")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--group-size", type=int, default=GROUP_SIZE)
    args = parser.parse_args(argv)
    try:
        quantize(args.source.resolve(), args.out.resolve(), args.method, args.prompts, args.group_size)
    except ImportError as error:
        mend = "install llmcompressor in an environment of its own, and name its Python with --python"
        print(f"headgate models quantize: {error}; {mend}", file=sys.stderr)
        return 1
    except (OSError, ValueError, RuntimeError) as error:
        print(f"headgate models quantize: {' '.join(str(error).split())[:300]}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
