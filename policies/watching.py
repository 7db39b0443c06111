"""Policies that follow their folder: polled, swapped in one step, and never replaced by something broken.

A change is taken up once the folder has looked the same at two polls in a row and did not move while it was read, so
that a file caught half-written is not loaded. What cannot be loaded is reported once and the last good set stays.
Requests hold the set they began with; a reload touches none of them.
"""

import asyncio
import logging
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigurationError
from policies.loading import Known, PolicySet, load_policies

POLL_S = 1.0

_logger = logging.getLogger(__name__)
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Reload:
    """What one reload did: the tenants that were added, removed or changed, and the version now in force."""

    changed: tuple[str, ...]
    version: str


class PolicyWatcher:
    """Holds the policies in force; reading `current` costs an attribute."""

    def __init__(self, folder: Path, known: Known) -> None:
        """Load the folder; raises ConfigurationError, since there is nothing yet to fall back on."""
        self._folder = folder
        self._known = known
        self._loaded = self._last_seen = _signature(folder)
        self._reloading = asyncio.Lock()
        self.current: PolicySet = load_policies(folder, known)
        self.problem: ConfigurationError | None = None

    async def reload(self) -> Reload:
        """Load the folder now and put it in force.

        Raises:
            ConfigurationError: it cannot be loaded, or changes while it is read; what was in force stays.
        """
        async with self._reloading:
            try:
                seen, policies = await asyncio.to_thread(self._read)
            except ConfigurationError as problem:
                self.problem = problem
                raise
            before, self.current = self.current, policies
            self._loaded, self.problem = seen, None
            return Reload(_changed(before, policies), policies.version)

    async def poll(self) -> Reload | None:
        """Look once, and reload if the folder has changed and come to rest."""
        seen = await asyncio.to_thread(_signature, self._folder)
        is_at_rest, self._last_seen = seen == self._last_seen, seen
        if seen == self._loaded or not is_at_rest:
            return None
        try:
            reload = await self.reload()
        except ConfigurationError as problem:
            self._loaded = seen
            _logger.error("policies not reloaded, the last good ones stay", extra={"problem": problem.message})
            return None
        _logger.info("policies reloaded", extra={"tenants": reload.changed, "version": reload.version})
        return reload

    async def run(self, poll_s: float = POLL_S) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(poll_s)
            await self.poll()

    def _read(self) -> tuple[Signature, PolicySet]:
        before = _signature(self._folder)
        policies = load_policies(self._folder, self._known)
        if _signature(self._folder) != before:
            raise ConfigurationError(str(self._folder), "", "changed while it was read", "reload again")
        return before, policies


def _signature(folder: Path) -> Signature:
    """Describe every YAML file by name, time, size and inode, following links; a missing folder is an empty one."""
    found: list[tuple[str, int, int, int]] = []
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.suffix == ".yaml")
    except OSError:
        return ()
    for entry in entries:
        try:
            status = entry.stat()
        except OSError:
            continue
        found.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(found)


def _changed(before: PolicySet, after: PolicySet) -> tuple[str, ...]:
    tenants = sorted({*before.tenants(), *after.tenants()})
    return tuple(tenant for tenant in tenants if before.get(tenant) != after.get(tenant))
