"""The index of one replica in a file, with its place in the stream of changes: a start need not read everything.

The file is written beside the old one and renamed. It ends with a digest: a file that is cut off, damaged, of another
version or of another encoder is left alone with one warning, and the replica starts from the store instead.
"""

import hashlib
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import msgspec
import numpy as np
from numpy.typing import NDArray

log = logging.getLogger(__name__)

Piece = tuple[str, list[str], NDArray[np.float32]]
"""A partition, ids, and their (n, d) rows."""

_MAGIC = b"HGINDEX1"
_LENGTH = struct.Struct("<I")
_DIGEST_BYTES = 32
_READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Position:
    """How far a replica has followed: the era of the stream's history, the change's running number, its stream id."""

    era: str
    number: int
    stream_id: str


class SnapshotFile:
    """One replica's file, for vectors of one encoder."""

    def __init__(self, path: Path, encoder: str) -> None:
        self._path = path
        self._encoder = encoder

    def save(self, position: Position, pieces: Iterable[Piece]) -> None:
        """Write everything, or leave the old file as it is.

        Raises:
            OSError: the file cannot be written.
        """
        draft = self._path.with_name(f"{self._path.name}.draft")
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
            for block in self._blocks(position, pieces):
                file.write(block)
                digest.update(block)
            file.write(digest.digest())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)

    def load(self) -> tuple[Position, Iterator[Piece]] | None:
        """Return the position and the pieces, or None where there is no whole file of this encoder."""
        try:
            problem = self._problem()
            if problem is not None:
                log.warning("index snapshot is left aside", extra={"file": str(self._path), "problem": problem})
                return None
            with self._path.open("rb") as file:
                file.seek(len(_MAGIC))
                _, era, number, stream_id = msgspec.msgpack.decode(_block(file), type=tuple[str, str, int, str])
        except FileNotFoundError:
            return None
        except (OSError, msgspec.DecodeError, struct.error) as failure:
            log.warning("index snapshot cannot be read", extra={"file": str(self._path), "problem": str(failure)})
            return None
        return Position(era, number, stream_id), self._pieces()

    def _blocks(self, position: Position, pieces: Iterable[Piece]) -> Iterator[bytes]:
        yield _MAGIC
        yield _packed((self._encoder, position.era, position.number, position.stream_id))
        for partition, ids, rows in pieces:
            yield _packed((partition, ids, rows.astype(np.float16).tobytes()))
        yield _LENGTH.pack(0)

    def _problem(self) -> str | None:
        size = self._path.stat().st_size - _DIGEST_BYTES
        with self._path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                return "of another version or no snapshot"
            digest, left = hashlib.blake2b(_MAGIC, digest_size=_DIGEST_BYTES), size - len(_MAGIC)
            while left > 0 and (part := file.read(min(left, _READ_BYTES))):
                digest.update(part)
                left -= len(part)
            if left != 0 or file.read() != digest.digest():
                return "truncated or damaged"
            file.seek(len(_MAGIC))
            encoder, *_ = msgspec.msgpack.decode(_block(file), type=tuple[str, str, int, str])
        return None if encoder == self._encoder else "of another encoder"

    def _pieces(self) -> Iterator[Piece]:
        with self._path.open("rb") as file:
            file.seek(len(_MAGIC))
            _block(file)
            while block := _block(file):
                partition, ids, packed = msgspec.msgpack.decode(block, type=tuple[str, list[str], bytes])
                rows = np.frombuffer(packed, dtype=np.float16).astype(np.float32).reshape(len(ids), -1)
                yield partition, ids, rows


def _packed(value: object) -> bytes:
    block = msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(block)) + block


def _block(file: BinaryIO) -> bytes:
    (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
    return file.read(length)
