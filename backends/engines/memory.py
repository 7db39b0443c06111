"""Keeps the sum of what engines declare within each device, before any of them is started."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

USABLE_RATIO = 0.95
"""Share of a device that engines may claim together; the rest is for everything that nobody declares."""


@dataclass(slots=True)
class MemoryBudget:
    """Claims on every device.

    Attributes:
        total_bytes: returns the memory of a device; it may raise ConfigurationError.
        reserved_bytes: by device, what else lives there, such as the encoder and the index.
    """

    total_bytes: Callable[[str], int]
    reserved_bytes: Mapping[str, int] = field(default_factory=dict)
    _claims: dict[str, dict[str, int]] = field(default_factory=dict)
    _turns: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    def shortfall(self, name: str, wanted_bytes: int, devices: Sequence[str] = ("cpu",)) -> str | None:
        """Claim memory for an engine, evenly on its devices, or return why there is not enough.

        An earlier claim of `name` is replaced.

        Raises:
            ConfigurationError: there is no such device.
        """
        share = -(-wanted_bytes // len(devices))
        for device in devices:
            total, free = self.total_bytes(device), self._free_bytes(device, name)
            if share > free:
                return f"declares {_mib(share)} on {device}, but only {_mib(max(0, free))} are left of {_mib(total)}"
        self._claims[name] = dict.fromkeys(devices, share)
        return None

    def has_room(self, name: str, wanted_bytes: int, devices: Sequence[str] = ("cpu",)) -> bool:
        """Tell whether an engine's claim would fit beside those of others; nothing is claimed.

        Raises:
            ConfigurationError: there is no such device.
        """
        share = -(-wanted_bytes // len(devices))
        return all(share <= self._free_bytes(device, name) for device in devices)

    def fits_alone(self, wanted_bytes: int, devices: Sequence[str] = ("cpu",)) -> bool:
        """Tell whether a claim would fit if no engine had one."""
        share = -(-wanted_bytes // len(devices))
        usable = (int(self.total_bytes(one) * USABLE_RATIO) - self.reserved_bytes.get(one, 0) for one in devices)
        return all(share <= size for size in usable)

    def release(self, name: str) -> None:
        """Give an engine's claims back."""
        self._claims.pop(name, None)

    @asynccontextmanager
    async def turn(self, devices: Sequence[str]) -> AsyncIterator[None]:
        """Wait for one's turn to start on these devices; on the CPU engines start side by side."""
        async with AsyncExitStack() as held:
            for device in sorted(set(devices) - {"cpu"}):
                await held.enter_async_context(self._turns[device])
            yield

    def claims(self, device: str) -> dict[str, int]:
        """Return bytes by engine on one device."""
        return {name: claimed[device] for name, claimed in self._claims.items() if device in claimed}

    def _free_bytes(self, device: str, name: str) -> int:
        others = sum(size for other, size in self.claims(device).items() if other != name)
        return int(self.total_bytes(device) * USABLE_RATIO) - self.reserved_bytes.get(device, 0) - others


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / 2**20:.0f} MiB"
