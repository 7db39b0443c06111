"""Turn a Hugging Face directory of any causal language model into OpenVINO IR that the CPU engine loads.

`PYTHON backends/bundled/convert.py DIR --out OUT --precision int4|int8|fp16`, where PYTHON belongs to the conversion
environment (constraints-convert.txt); run by path it needs nothing of the gateway. It fails closed: OUT appears whole,
under its final name, or not at all. It never downloads, never runs code from DIR, and sends no usage telemetry.
"""

import argparse
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

PRECISIONS: Final = ("int4", "int8", "fp16")
GROUP_SIZE: Final = 128
"""Weights that share one INT4 scale, as NNCF recommends; layers that do not divide by it get a smaller group."""

ENGINE_FILES: Final = tuple(
    f"openvino_{part}.{suffix}" for part in ("model", "tokenizer", "detokenizer") for suffix in ("xml", "bin")
)
_RECORD: Final = "conversion.json"
_TRAINING: Final = "training.json"  # what backends/bundled/train.py says about a model; others have none
_PACKAGES: Final = ("torch", "transformers", "optimum-intel", "nncf", "openvino", "openvino-tokenizers")
_QUIET: Final = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "CI": "true", "NNCF_CI": "1"}
"""OpenVINO and NNCF report each use unless told that they run in CI; the hub's client is kept off the network."""


class ConversionError(Exception):
    """The directory could not be converted; the message is one line that names the cause and the mend."""


def convert(source: Path, out: Path, precision: str, group_size: int = GROUP_SIZE) -> None:
    """Write `source` as OpenVINO IR with tokenizer and chat template to `out`. Raises ConversionError."""
    _check(source, out, precision)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        _export(source, partial, precision, group_size)
        _forget_paths(partial, source)
        _record(partial, source, precision, group_size)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _check(source: Path, out: Path, precision: str) -> None:
    if precision not in PRECISIONS:
        raise ConversionError(f"--precision {precision}: unknown; choose one of {', '.join(PRECISIONS)}")
    if not (source / "config.json").is_file():
        raise ConversionError(f"{source}: no config.json; give the directory of a Hugging Face model")
    if not any(source.glob("*.safetensors")) and not any(source.glob("*.bin")):
        raise ConversionError(f"{source}: no weights (*.safetensors); fetch the whole model first")
    if not (source / "tokenizer_config.json").is_file():
        raise ConversionError(f"{source}: no tokenizer_config.json; fetch the tokenizer files too")
    if out.exists():
        raise ConversionError(f"{out}: exists already; remove it or give another --out")


def _export(source: Path, out: Path, precision: str, group_size: int) -> None:
    exporter = Path(sys.executable).with_name("optimum-cli")
    if not exporter.is_file():
        raise ConversionError(
            f"{exporter}: not found; run this with the Python of an environment made from constraints-convert.txt"
        )
    command = [str(exporter), "export", "openvino", "--model", str(source), "--task", "text-generation-with-past"]
    command += ["--weight-format", precision]
    if precision == "int4":
        command += ["--group-size", str(group_size), "--group-size-fallback", "adjust"]
    done = subprocess.run(
        [*command, str(out)], env={**os.environ, **_QUIET}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
        raise ConversionError(f"{source}: the exporter failed (status {done.returncode}): {last}")
    missing = [name for name in ENGINE_FILES if not (out / name).is_file()]
    if missing:
        raise ConversionError(f"{source}: the exporter wrote no {', '.join(missing)}; is its tokenizer a fast one?")


def _forget_paths(out: Path, source: Path) -> None:
    """Drop the record of the exporter's options: the engine does not read it, and it holds paths of this machine."""
    (out / "openvino_config.json").unlink(missing_ok=True)
    for name in ("config.json", "tokenizer_config.json"):
        text = (out / name).read_text()
        (out / name).write_text(text.replace(str(source), source.name))


def _record(out: Path, source: Path, precision: str, group_size: int) -> None:
    record = {
        "source": source.name,
        "precision": precision,
        "group_size": group_size if precision == "int4" else None,
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
    }
    (out / _RECORD).write_text(json.dumps(record, indent=2) + "\n")
    if (source / _TRAINING).is_file():
        shutil.copyfile(source / _TRAINING, out / _TRAINING)


def main(argv: Sequence[str] | None = None) -> int:
    """Convert one directory; return 0, or 1 after one line on stderr."""
    parser = argparse.ArgumentParser(description="Turn a Hugging Face model directory into OpenVINO IR.")
    parser.add_argument("source", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--precision", choices=PRECISIONS, default="int4")
    parser.add_argument("--group-size", type=int, default=GROUP_SIZE, help="INT4 only; -1 means one scale per column")
    args = parser.parse_args(argv)
    try:
        convert(args.source.resolve(), args.out.resolve(), args.precision, args.group_size)
    except ConversionError as error:
        print(f"headgate models convert: {error}", file=sys.stderr)
        return 1
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
