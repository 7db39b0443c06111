"""Keep this replica's index in step with the entries in Redis, by following the stream of changes.

A start takes the snapshot, if there is one, and follows from its position; without one, and whenever the stream shows
a gap (trimmed, another history, lost by a crash), everything is compared with the store: what is missing is added, what
is gone is removed. Changes are numbered without holes, so a gap cannot pass unnoticed. While Redis is away the index
stays as it is: a hit reads its entry from Redis, so an index that is behind costs a miss, never a wrong answer.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cache.entry_store import StoredVector
from cache.local_copies import LocalCopies
from cache.redis_door import ROOT, Commands, pairs_of
from cache.redis_store import RedisEntryStore
from cache.snapshot import Piece, Position, SnapshotFile
from core.cached import Vector
from core.clock import Clock

log = logging.getLogger(__name__)

BLOCK_S = 1.0
"""How long one wait for changes lasts; then the place is checked against the store."""
SWEEP_EVERY_S = 30.0
SAVE_EVERY_S = 300.0
_RETRY_S = 0.05
_RETRY_MOST_S = 1.0
_AT_ONCE = 512
_STREAM = f"{ROOT}changes"
_START = Position("", 0, "0-0")


class ReplicatedIndex(Protocol):
    """A `VectorIndex` that can be compared with the store."""

    def add(self, partition: str, entry_id: str, vector: Vector) -> None:
        """Put one vector; see `VectorIndex.add`."""
        ...

    def add_all(self, partition: str, entry_ids: Sequence[str], rows: NDArray[np.float32]) -> None:
        """Put (n, d) rows under distinct ids."""
        ...

    def remove(self, entry_ids: Sequence[str]) -> None:
        """Forget entries; see `VectorIndex.remove`."""
        ...

    def contents(self) -> Iterator[Piece]:
        """Yield partitions, ids and rows in pieces."""
        ...

    def __contains__(self, entry_id: str) -> bool:
        """Whether the entry is there."""
        ...


class _Gap(Exception):
    """Changes were missed."""


@dataclass(slots=True)
class _Changes:
    """What a run of changes amounts to."""

    gone: list[str] = field(default_factory=list)
    added: dict[str, StoredVector] = field(default_factory=dict)

    def apply(self, index: ReplicatedIndex, encoder: str) -> None:
        index.remove(self.gone)
        for one in self.added.values():
            if one.encoder == encoder and one.entry_id not in index:
                index.add(one.scope, one.entry_id, one.vector)


class Follower:
    """Follows for one replica, inside `running`; `client` is its own, with a timeout well above `BLOCK_S`."""

    def __init__(
        self,
        client: Commands,
        store: RedisEntryStore,
        index: ReplicatedIndex,
        encoder: str,
        clock: Clock,
        snapshot: SnapshotFile | None = None,
        copies: LocalCopies | None = None,
    ) -> None:
        self._copies = copies
        self._replica = secrets.token_hex(8)
        self._client = client
        self._store = store
        self._index = index
        self._encoder = encoder
        self._clock = clock
        self._snapshot = snapshot
        self._to_load = snapshot
        self._position: Position | None = None
        self._moved = asyncio.Condition()
        self._swept_at_s = self._saved_at_s = clock.monotonic_s()
        self._is_saved = True
        self._is_ending = False
        self.reconciliations = 0

    @property
    def position(self) -> Position | None:
        """Return how far this replica has come; None before the first start succeeded."""
        return self._position

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow until the block ends, then save the snapshot."""
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            self._is_ending = True  # should the client swallow the cancellation, the loop still ends after `BLOCK_S`
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if self._copies is not None:
                await self._store.leave(self._replica)
            await self._save()

    async def caught_up(self) -> None:
        """Wait until every change that Redis holds at this moment is in the index.

        Raises:
            Exception: what the client raises when Redis is away.
        """
        target = await self._last()
        async with self._moved:
            await self._moved.wait_for(
                lambda: (
                    self._position is not None
                    and (self._position.era == target.era or not target.era)
                    and self._position.number >= target.number
                )
            )

    async def _run(self) -> None:
        pause_s, is_told = _RETRY_S, False
        while not self._is_ending:
            try:
                await self._step()
                pause_s, is_told = _RETRY_S, False
            except _Gap:
                log.info("changes of the shared cache were missed, comparing everything")
                self._position = None
                if self._copies is not None:
                    self._copies.clear()
            except Exception as problem:
                if self._copies is not None:
                    self._copies.lost()
                if not is_told:
                    reason = f"{type(problem).__name__}: {problem}"
                    log.warning("the shared cache cannot be followed, trying again", extra={"error": reason})
                    is_told = True
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, _RETRY_MOST_S)

    async def _step(self) -> None:
        """Come one run of changes further, or notice that there is none."""
        position = self._position
        if position is None:
            position = await self._start()
        else:
            events = await self._read(position, block_ms=int(BLOCK_S * 1000))
            if events:
                position = await self._apply(position, events)
            else:
                await self._check(position)
        async with self._moved:
            self._position = position
            self._moved.notify_all()
        await self._certify(position)
        await self._tend()

    async def _certify(self, position: Position) -> None:
        """Tell the store how far this replica is, which is what its copies may be trusted by."""
        if self._copies is not None:
            at_s = self._clock.monotonic_s()
            await self._store.beat(self._replica, position.era, position.number)
            self._copies.certify(at_s)

    async def _start(self) -> Position:
        """Take the snapshot, once; without one compare everything with the store."""
        snapshot, self._to_load = self._to_load, None
        loaded = None if snapshot is None else await asyncio.to_thread(snapshot.load)
        if loaded is None:
            return await self._reconcile()
        position, pieces = loaded
        await asyncio.to_thread(self._fill, pieces)
        return position

    def _fill(self, pieces: Iterator[Piece]) -> None:
        for partition, ids, rows in pieces:
            new = [at for at, entry_id in enumerate(ids) if entry_id not in self._index]
            self._index.add_all(partition, [ids[at] for at in new], rows[new])

    async def _reconcile(self) -> Position:
        """Make the index equal to the store as it was some time after the position that is returned."""
        self.reconciliations += 1
        position = await self._last()
        known: set[str] = set()
        async for batch in self._store.live():
            known.update(one.entry_id for one in batch)
            changes = _Changes(added={one.entry_id: one for one in batch})
            await asyncio.to_thread(changes.apply, self._index, self._encoder)
        await asyncio.to_thread(self._remove_unknown, known)
        self._is_saved = False
        return position

    def _remove_unknown(self, known: set[str]) -> None:
        for _, ids, _ in self._index.contents():
            self._index.remove([entry_id for entry_id in ids if entry_id not in known])

    async def _read(self, position: Position, block_ms: int) -> list[tuple[str, dict[str, bytes]]]:
        block = ("BLOCK", block_ms) if block_ms else ()
        reply = await self._client.execute_command(
            "XREAD", *block, "COUNT", _AT_ONCE, "STREAMS", _STREAM, position.stream_id
        )
        if not reply:
            return []
        (events,) = reply.values() if isinstance(reply, dict) else (one[1] for one in reply)
        return _events(events)

    async def _apply(self, position: Position, events: list[tuple[str, dict[str, bytes]]]) -> Position:
        changes = _Changes()
        for stream_id, fields in events:
            era, number = fields["era"].decode(), int(fields["n"])
            if number != position.number + 1 or (position.era and era != position.era):
                raise _Gap
            position = Position(era, number, stream_id)
            self._collect(changes, fields)
        await asyncio.to_thread(changes.apply, self._index, self._encoder)
        self._is_saved = False
        return position

    def _collect(self, changes: _Changes, fields: dict[str, bytes]) -> None:
        gone = fields["gone"].decode().split()
        if self._copies is not None:
            self._copies.drop(gone)
        for entry_id in gone:
            changes.added.pop(entry_id, None)
            changes.gone.append(entry_id)
        if fields["v"]:
            one = self._store.vector_of(fields["t"].decode(), fields["id"].decode(), fields["v"])
            if one is not None:
                changes.added[one.entry_id] = one

    async def _check(self, position: Position) -> None:
        """Notice a history that lost what was followed, or that goes on where XREAD does not see it."""
        last = await self._last()
        if last == position or (not last.era and not position.era):
            return
        if last.era == position.era and last.number > position.number and await self._read(position, block_ms=0):
            return
        raise _Gap

    async def _last(self) -> Position:
        """Return the position of the newest change."""
        reply = await self._client.execute_command("XREVRANGE", _STREAM, "+", "-", "COUNT", 1)
        for stream_id, fields in _events(reply or []):
            return Position(fields["era"].decode(), int(fields["n"]), stream_id)
        return _START

    async def _tend(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._swept_at_s >= SWEEP_EVERY_S:
            self._swept_at_s = now_s
            await self._store.sweep()
        if now_s - self._saved_at_s >= SAVE_EVERY_S:
            self._saved_at_s = now_s
            await self._save()

    async def _save(self) -> None:
        if self._snapshot is None or self._position is None or self._is_saved:
            return
        try:
            await asyncio.to_thread(self._snapshot.save, self._position, self._index.contents())
            self._is_saved = True
        except OSError as problem:
            log.warning("index snapshot was not written", extra={"error": str(problem)})


def _events(reply: Any) -> list[tuple[str, dict[str, bytes]]]:
    return [(stream_id.decode(), dict(pairs_of(fields))) for stream_id, fields in reply]
