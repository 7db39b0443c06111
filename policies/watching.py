"""Policies that follow their folder: polled, swapped in one step, and never replaced by something broken.

A change is taken up once the folder has looked the same at two polls in a row and did not move while it was read, so
that a file caught half-written is not loaded. What cannot be loaded is reported once and the last good set stays.
Requests hold the set they began with; a reload touches none of them.

A ConfigMap swaps the link of a hidden folder: files are told apart by what their links lead to, so that is one change.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigurationError
from policies.loading import Known, Loaded, PolicySet, load_policies

POLL_S = 1.0
IDLE_FACTOR = 50
"""A look at a large folder takes time: wait at least this many times as long before the next one (2 % of a core)."""

_logger = logging.getLogger(__name__)
Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class ReloadResult:
    """What one reload did; with a `problem` nothing changed, and `version` is the one that stays in force.

    `changed` are the tenants that were added, removed or changed.
    """

    changed: tuple[str, ...]
    version: str
    problem: ConfigurationError | None = None

    @property
    def is_loaded(self) -> bool:
        """Tell whether what is in the folder is now in force."""
        return self.problem is None


class PolicyWatcher:
    """Holds the policies in force; reading `current` costs an attribute.

    `problem` is what keeps the folder's present content from being in force, or None.
    """

    def __init__(self, folder: Path, known: Known, variables: Mapping[str, str | None] | None = None) -> None:
        """Load the folder; raises ConfigurationError, since there is nothing yet to fall back on."""
        self._folder = folder
        self._known = known
        self._variables = variables
        self._seen = self._handled = _signature(folder)
        self._reloading = asyncio.Lock()
        self._loaded = Loaded()
        self.current: PolicySet = load_policies(folder, known, variables, self._loaded)
        self.problem: ConfigurationError | None = None

    async def reload(self) -> ReloadResult:
        """Read every file anew and put all in force or nothing; what is wrong is in the result and logged."""
        async with self._reloading:
            self._loaded = Loaded()
            seen = await asyncio.to_thread(_signature, self._folder)
            return await self._load(seen)

    async def poll(self) -> ReloadResult | None:
        """Look once, and reload what has changed if the folder has come to rest."""
        seen = await asyncio.to_thread(_signature, self._folder)
        is_at_rest, self._seen = seen == self._seen, seen
        if seen == self._handled or not is_at_rest:
            return None
        async with self._reloading:
            return None if seen == self._handled else await self._load(seen)

    async def run(self, poll_s: float = POLL_S) -> None:
        """Poll until cancelled, less often where a look takes long."""
        while True:
            started_s = time.monotonic()
            await self.poll()
            await asyncio.sleep(max(poll_s, IDLE_FACTOR * (time.monotonic() - started_s)))

    async def _load(self, seen: Signature) -> ReloadResult:
        """Read the folder, which looked like `seen`, in a thread; swap only what came out whole."""
        try:
            policies = await asyncio.to_thread(self._read, seen)
        except ConfigurationError as problem:
            self.problem = problem
            self._handled = seen
            _logger.error("policies not reloaded, the last good ones stay", extra={"problem": problem.message})
            return ReloadResult((), self.current.version, problem)
        before, self.current = self.current, policies
        self._handled, self.problem = seen, None
        result = ReloadResult(_changed(before, policies), policies.version)
        _logger.info("policies reloaded", extra={"tenants": result.changed, "version": result.version})
        return result

    def _read(self, seen: Signature) -> PolicySet:
        policies = load_policies(self._folder, self._known, self._variables, self._loaded)
        if _signature(self._folder) != seen:
            raise ConfigurationError(str(self._folder), "", "changed while it was read", "reload again")
        return policies


def _signature(folder: Path) -> Signature:
    """Describe every YAML file by path, time, size and inode, following links; a missing folder is an empty one."""
    found: list[tuple[str, int, int, int]] = []
    for path in _yaml_files(folder):
        try:
            status = os.stat(path)
        except OSError:
            continue
        found.append((path, status.st_mtime_ns, status.st_size, status.st_ino))
    return tuple(sorted(found))


def _yaml_files(folder: Path) -> Iterator[str]:
    """Yield the YAML files of the folder and of those below, where included ones may be; hidden ones are not read."""
    entered: set[str] = set()
    for here, folders, names in os.walk(folder, followlinks=True):
        entered.add(os.path.realpath(here))
        folders[:] = [
            name
            for name in folders
            if not name.startswith(".") and os.path.realpath(os.path.join(here, name)) not in entered
        ]
        yield from (os.path.join(here, name) for name in names if name.endswith(".yaml"))


def _changed(before: PolicySet, after: PolicySet) -> tuple[str, ...]:
    versions = [{name: policy.version for name, policy in each.policies.items()} for each in (before, after)]
    return tuple(
        sorted(name for name in {**versions[0], **versions[1]} if versions[0].get(name) != versions[1].get(name))
    )
