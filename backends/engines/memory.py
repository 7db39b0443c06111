"""Keeps the sum of what engines declare within the device, before any of them is started."""

from dataclasses import dataclass, field

USABLE_RATIO = 0.95
"""Share of the device that engines may claim together; the rest is for everything that nobody declares."""


@dataclass(slots=True)
class MemoryBudget:
    """Claims on one device; `reserved_bytes` is for what else lives there, such as the encoder and the index."""

    total_bytes: int
    reserved_bytes: int = 0
    _claims: dict[str, int] = field(default_factory=dict)

    def shortfall(self, name: str, wanted_bytes: int) -> str | None:
        """Claim memory for an engine, or return why there is not enough; an earlier claim of `name` is replaced."""
        others = sum(claimed for other, claimed in self._claims.items() if other != name)
        free = int(self.total_bytes * USABLE_RATIO) - self.reserved_bytes - others
        if wanted_bytes > free:
            return f"declares {_mib(wanted_bytes)}, but only {_mib(max(0, free))} are left of {_mib(self.total_bytes)}"
        self._claims[name] = wanted_bytes
        return None

    def release(self, name: str) -> None:
        """Give an engine's claim back."""
        self._claims.pop(name, None)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
