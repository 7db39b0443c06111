"""The seam to the encoder that turns prompts into vectors, and what it may answer."""

from collections.abc import Sequence
from typing import Protocol

from core.cached import Vector


class EncoderUnavailable(Exception):
    """The encoder is not ready, overloaded, closed or broken; the cache then works by exact match."""


class Embedder(Protocol):
    """Makes vectors that may be compared when they carry the same `fingerprint`."""

    @property
    def fingerprint(self) -> str:
        """Name weights, runtime and precision; vectors and thresholds of different fingerprints are never mixed."""
        ...

    def is_ready(self) -> bool:
        """Whether `embed` can answer now; false while the weights load and after a failure."""
        ...

    async def embed(self, texts: Sequence[str]) -> tuple[Vector | None, ...]:
        """Return one (d,) float32, L2-normalised vector for each text; None where the text exceeds the window.

        Raises:
            EncoderUnavailable: not ready, too many texts waiting, or the encoder failed.
        """
        ...

    async def close(self) -> None:
        """Stop the encoder's thread; what waits is refused."""
        ...
