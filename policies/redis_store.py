"""What everything that keeps a tenant's state in Redis shares: the door, the clock's argument, and packed budgets."""

from collections.abc import Callable
from typing import Any

from core.clock import Clock
from policies.budgets import MAX_USERS
from policies.redis_draws import PREFIX, Drawing, Draws, keys_of, ms
from policies.redis_scripts import TIMEOUT_S, Commands, Door, Script
from policies.redis_wire import Part, StoreAway

TENANTS = f"{PREFIX}:tenants"
KEPT_KEYS = 20_000


class RedisStore:
    """Runs scripts on the keys of one tenant at a time."""

    def __init__(
        self,
        client: Commands,
        clock: Clock,
        *,
        timeout_s: float = TIMEOUT_S,
        server_time: bool = True,
        max_users: int = MAX_USERS,
    ) -> None:
        """Use `client`; with `server_time=False` the clock given counts, for simulations."""
        self.clock = clock
        self.door = Door(client, clock, timeout_s)
        self.drawing = Drawing(clock, max_users)
        self._server_time = server_time
        self._announced: set[str] = set()
        self._keys: dict[str, tuple[str, ...]] = {}

    async def run(self, script: Script, tenant: str, *arguments: Part, more_keys: tuple[str, ...] = ()) -> Any:
        """Run a script with the present as its first argument.

        Raises:
            StoreAway: no answer in time.
        """
        if tenant not in self._announced:
            await self._announce(tenant)
        try:
            return await self.door.run(script, (*self.keys(tenant), *more_keys), self.now(), *arguments)
        except StoreAway:
            self._announced.clear()  # the store may come back without its latest second
            raise

    async def run_drawn(
        self,
        script: Script,
        tenant: str,
        draws: Callable[[], Draws],
        *before: Part,
        after: tuple[Part, ...] = (),
        more_keys: tuple[str, ...] = (),
    ) -> tuple[Any, Draws]:
        """Run a script that takes packed budgets, again with the server's time where this clock is too wrong.

        Raises:
            StoreAway: no answer in time.
        """
        drawn = draws()
        reply = await self.run(script, tenant, *before, drawn.packed, *after, more_keys=more_keys)
        if reply[:1] == [-1]:
            self.drawing.set_server_time(reply[1])
            drawn = draws()
            reply = await self.run(script, tenant, *before, drawn.packed, *after, more_keys=more_keys)
        return reply, drawn

    def keys(self, tenant: str) -> tuple[str, ...]:
        """Return the tenant's keys."""
        keys = self._keys.get(tenant)
        if keys is None:
            if len(self._keys) >= KEPT_KEYS:
                self._keys.clear()
            keys = self._keys[tenant] = keys_of(tenant)
        return keys

    def now(self) -> str:
        """Return the scripts' first argument: 0 for the server's time."""
        return "0" if self._server_time else str(ms(self.clock.now()))

    async def _announce(self, tenant: str) -> None:
        """Make the tenant known to the reapers of all replicas, once per process."""
        await self.door.ask("SADD", TENANTS, tenant)
        self._announced.add(tenant)
