"""Writes what launchers look at in a Hugging Face folder before they start an engine; no weights worth the name."""

import json
import struct
from pathlib import Path
from typing import Any

QUANTISED: dict[str, dict[str, Any]] = {
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4}},
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "w4a16": {
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
        }
    },
    "fp8": {"quantization_config": {"quant_method": "fp8"}},
    "gpt-oss": {"quantization_config": {"quant_method": "mxfp4"}},
}


def write_weights(folder: Path, config: dict[str, Any], dtype: str = "BF16") -> Path:
    """Write what a launcher looks at: a config and the header of a safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    header = json.dumps({"w": {"dtype": dtype, "shape": [2], "data_offsets": [0, 4]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0" * 4)
    return folder
