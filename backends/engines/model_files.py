"""Reads from a model's files, without loading them, what its weights are stored in."""

import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any, BinaryIO

from backends.engines.launcher import Precision
from core.errors import ConfigurationError

HALF: frozenset[Precision] = frozenset({"fp16", "bf16", "fp32"})
"""Unquantised: an engine may compute any of them from any other."""
SAFETENSORS: dict[str, Precision] = {"F32": "fp32", "F16": "fp16", "BF16": "bf16", "F8_E4M3": "fp8"}
MAX_HEADER_BYTES = 100 << 20
MEND = "correct the path, or fetch it with `headgate models pull`"

GGUF_MAGIC = b"GGUF"
GGUF_STRING, GGUF_ARRAY = 8, 9
GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
GGUF_FILE_TYPES: dict[int, Precision] = {0: "fp32", 1: "fp16", 7: "int8", 8: "int8", 9: "int8", 32: "bf16", 38: "mxfp4"}
"""`general.file_type` of llama.cpp (`llama_ftype`); every other number is a kind of 4 bits or fewer."""
GGUF_INT8 = frozenset({16, 17, 18})  # Q5_K_S, Q5_K_M, Q6_K


def hugging_face_precision(model_dir: Path, recipe: str) -> Precision:
    """Return what the weights of a Hugging Face folder are stored in.

    Raises:
        ConfigurationError: the folder is missing, or has no config, weights or tokenizer.
    """
    name = f"recipe {recipe}"
    if not model_dir.is_dir():
        raise ConfigurationError(name, "weights", f"the folder {model_dir} does not exist", MEND)
    weights = sorted(model_dir.glob("*.safetensors"))
    for what, found in (("config.json", (model_dir / "config.json").is_file()), ("*.safetensors", bool(weights))):
        if not found:
            raise ConfigurationError(name, "weights", f"{model_dir} has no {what}", MEND)
    try:
        config = json.loads((model_dir / "config.json").read_text(encoding="utf-8"))
        quantised = _quantised(config.get("quantization_config") or config.get("compression_config"))
        return quantised or _stored(weights[0])
    except (OSError, ValueError, TypeError, KeyError, AttributeError, struct.error) as problem:
        raise ConfigurationError(name, "weights", f"{model_dir} cannot be read: {problem}", MEND) from problem


def check_precision(wanted: Precision, found: Precision, model: Path, recipe: str) -> None:
    """Refuse weights that are not what the recipe says; unquantised ones may be computed in another half.

    Raises:
        ConfigurationError: they differ.
    """
    if wanted == found or (wanted in HALF and found in HALF):
        return
    problem = f"says {wanted}, but {model} holds {found} weights"
    raise ConfigurationError(
        f"recipe {recipe}", "precision", problem, f"write `precision: {found}`, or use other weights"
    )


def gguf_file(weights: Path, recipe: str) -> Path:
    """Return the GGUF file that `weights` is, or the only (or first) one in that folder.

    Raises:
        ConfigurationError: there is none.
    """
    if weights.is_file():
        return weights
    files = sorted(weights.glob("*.gguf")) if weights.is_dir() else []
    whole = [file for file in files if "-of-" not in file.name or "-00001-of-" in file.name]
    if len(whole) == 1:
        return whole[0]
    what = f"{weights} has {len(whole)} GGUF files" if weights.is_dir() else f"{weights} does not exist"
    raise ConfigurationError(
        f"recipe {recipe}", "weights", what, "name the .gguf file, or fetch it with `headgate models pull`"
    )


def gguf_precision(file: Path, recipe: str) -> Precision:
    """Return what most weights of a GGUF file are stored in: 4 bits and fewer are int4, 5 to 8 int8.

    Raises:
        ConfigurationError: it is no GGUF file, or does not say.
    """
    try:
        with file.open("rb") as stream:
            kind = _gguf_file_type(stream)
    except (OSError, ValueError, struct.error) as problem:
        raise ConfigurationError(f"recipe {recipe}", "weights", f"{file} is no GGUF file: {problem}", MEND) from problem
    if kind in GGUF_FILE_TYPES:
        return GGUF_FILE_TYPES[kind]
    return "int8" if kind in GGUF_INT8 else "int4"


def _quantised(config: Any) -> Precision | None:
    """Return the precision that a checkpoint's quantisation settings tell, None without any."""
    if not config:
        return None
    method = str(config.get("quant_method", ""))
    if method in ("fp8", "fbgemm_fp8", "mxfp4"):
        return "mxfp4" if method == "mxfp4" else "fp8"
    if method == "compressed-tensors":
        weights = [group["weights"] for group in config.get("config_groups", {}).values() if group.get("weights")]
        return _by_bits(weights[0].get("num_bits"), weights[0].get("type")) if weights else None
    if config.get("load_in_4bit"):
        return "int4"
    return _by_bits(config.get("bits") or config.get("w_bit"), "int")


def _by_bits(bits: Any, kind: Any) -> Precision:
    if kind == "float":
        return "fp8" if bits == 8 else "mxfp4"
    return "int4" if bits in (None, 2, 3, 4) else "int8"


def _stored(file: Path) -> Precision:
    """Return the type of most weights of a safetensors file, by number of bytes."""
    with file.open("rb") as stream:
        size = struct.unpack("<Q", stream.read(8))[0]
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"{file.name} is no safetensors file")
        header = json.loads(stream.read(size))
    sizes: Counter[str] = Counter()
    for name, tensor in header.items():
        if name != "__metadata__":
            sizes[tensor["dtype"]] += tensor["data_offsets"][1] - tensor["data_offsets"][0]
    kind = sizes.most_common(1)[0][0] if sizes else "F32"
    return SAFETENSORS.get(kind, "int8")


def _gguf_file_type(stream: BinaryIO) -> int:
    """Read the header's keys up to `general.file_type`; layout of the GGUF specification, version 2 and 3."""
    if stream.read(4) != GGUF_MAGIC:
        raise ValueError("it does not begin with GGUF")
    _, _, count = struct.unpack("<IQQ", stream.read(20))
    for _ in range(min(count, 10_000)):
        key = _gguf_value(stream, GGUF_STRING)
        value = _gguf_value(stream, struct.unpack("<I", stream.read(4))[0])
        if key == "general.file_type" and isinstance(value, int):
            return value
    raise ValueError("it has no general.file_type")


def _gguf_value(stream: BinaryIO, kind: int) -> object:
    if kind == GGUF_STRING:
        (size,) = struct.unpack("<Q", stream.read(8))
        if size > MAX_HEADER_BYTES:
            raise ValueError("a text in its header is too long")
        return stream.read(size).decode("utf-8", "replace")
    if kind == GGUF_ARRAY:
        inner, count = struct.unpack("<IQ", stream.read(12))
        return [_gguf_value(stream, inner) for _ in range(min(count, 10_000_000))]
    form = GGUF_SCALARS.get(kind)
    if form is None:
        raise ValueError(f"its header has a value of unknown kind {kind}")
    value: object = struct.unpack(f"<{form}", stream.read(struct.calcsize(form)))[0]
    return value
