"""What every part of a gateway stands on: the operator's choices, the policies in force, the clock and the secret."""

from dataclasses import dataclass

from core.clock import Clock, SystemClock
from gateway.settings.operator import Settings
from policies.failures import FailureLimiter
from policies.loading import PolicySet
from policies.pepper import load_pepper
from policies.watching import PolicyWatcher


@dataclass(frozen=True, slots=True)
class Ground:
    """What the parts share; `pepper` keys what is hashed, `failures` counts wrong keys on both listeners."""

    settings: Settings
    clock: Clock
    watcher: PolicyWatcher
    pepper: bytes
    failures: FailureLimiter

    def policies(self) -> PolicySet:
        """Return the policies in force."""
        return self.watcher.current

    def has_one_tenant(self) -> bool:
        """Tell whether nobody shares this gateway."""
        return len(self.watcher.current.policies) <= 1


def open_ground(settings: Settings) -> Ground:
    """Read the policies, then open the state's folder and its secret, which are made on first use.

    Raises:
        ConfigurationError: a policy or the secret cannot be used.
    """
    clock = SystemClock()
    watcher = PolicyWatcher(settings.policies, settings.known, settings.environment)
    settings.state_file.parent.mkdir(parents=True, exist_ok=True)
    return Ground(settings, clock, watcher, load_pepper(settings.pepper_file), FailureLimiter(clock))
