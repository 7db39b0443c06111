"""How often a client address may present a wrong key: a rate per address, in bounded memory.

The rate is GCRA, as in admission: per address one moment at which its allowance is whole again. Of more addresses than
are remembered, the ones heard of least recently are forgotten. An IPv6 address counts as its /64 network, since whoever
has one has all of it.
"""

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address

from core.clock import Clock

PERIOD_S = 60.0
FAILURES_PER_MINUTE = 600
"""Far above what a mistaken client sends, far below what guesses need: 256 random bits are not guessed at any rate."""
REMEMBERED_ADDRESSES = 10_000


class FailureLimiter:
    """Counts failures by client address."""

    def __init__(
        self, clock: Clock, per_minute: int = FAILURES_PER_MINUTE, remembered: int = REMEMBERED_ADDRESSES
    ) -> None:
        self._clock = clock
        self._cost_s = PERIOD_S / per_minute
        self._remembered = remembered
        self._full_at_s: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at_s)

    def wait_s(self, address: str) -> float:
        """Return how long `address` has to wait before its next failure is taken; 0 means not at all."""
        full_at_s = self._full_at_s.get(network_of(address)) if self._full_at_s else None
        if full_at_s is None:
            return 0.0
        wait_s = full_at_s + self._cost_s - PERIOD_S - self._clock.monotonic_s()
        return wait_s if wait_s > 1e-6 else 0.0

    def note(self, address: str) -> None:
        """Count one failure."""
        network, now_s = network_of(address), self._clock.monotonic_s()
        self._full_at_s[network] = max(self._full_at_s.get(network, 0.0), now_s) + self._cost_s
        self._full_at_s.move_to_end(network)
        if len(self._full_at_s) > self._remembered:
            self._full_at_s.popitem(last=False)


def network_of(address: str) -> str:
    """Return an IPv4 address as it is, an IPv6 address as its /64 network, and anything else shortened."""
    if ":" not in address:
        return address[:64]
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return parsed.exploded[:19]
    return address[:64]
