"""Weights of a safetensors file, mapped instead of read: only what is touched is in memory, once for all workers.

The format: eight bytes with the length of a header, little-endian; the header, JSON that names each tensor's kind,
shape and place; the tensors (https://huggingface.co/docs/safetensors/index#format).
"""

import mmap
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

_KINDS: dict[str, type[np.generic]] = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64,
                                       "I32": np.int32, "I8": np.int8, "U8": np.uint8}  # fmt: skip
_LENGTH_BYTES = 8


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


class MappedWeights:
    """The tensors of one file by name, in `tensors`; nobody may write to them."""

    def __init__(self, file: Path) -> None:
        """Map a file.

        Raises:
            OSError: it cannot be read.
            ValueError: it is no safetensors file, or holds tensors of a kind that is not known here.
        """
        with file.open("rb") as opened:
            # writeable, privately, because OpenVINO refuses to share an array that is not
            self._mapped = mmap.mmap(opened.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        begin = _LENGTH_BYTES + int.from_bytes(self._mapped[:_LENGTH_BYTES], "little")
        header = msgspec.json.decode(self._mapped[_LENGTH_BYTES:begin], type=dict[str, msgspec.Raw])
        header.pop("__metadata__", None)
        self.tensors = {name: self._tensor(raw, begin) for name, raw in header.items()}

    def let_go(self) -> None:
        """Give the memory of all tensors back; what is touched again comes from the file again."""
        self._mapped.madvise(mmap.MADV_DONTNEED)

    def _tensor(self, raw: msgspec.Raw, begin: int) -> NDArray[Any]:
        tensor = msgspec.json.decode(raw, type=_Tensor)
        kind = _KINDS.get(tensor.dtype)
        if kind is None:
            raise ValueError(f"a tensor of kind {tensor.dtype} cannot be mapped")
        first, end = tensor.data_offsets
        count = (end - first) // np.dtype(kind).itemsize
        return np.frombuffer(self._mapped, kind, count, begin + first).reshape(tensor.shape)
