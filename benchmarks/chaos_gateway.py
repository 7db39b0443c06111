"""One gateway of the chaos run: the real ledgers and reservations under simulated requests, until told to stop.

    python -m benchmarks.chaos_gateway URL JOURNAL SKEW_S SEED SURVIVES

Prints its replica's name, serves until its standard input ends, then gives everything back and exits.
"""

import asyncio
import contextlib
import random
import sys
from pathlib import Path
from time import monotonic

import uvloop

from benchmarks.chaos_journal import ChaosTenant, Journal, Outcome, SkewedClock, tenants
from core.errors import BudgetExhausted, Unavailable
from core.identity import Caller
from policies.ledger import Cost, Hold
from policies.ledger_redis import RedisLedger
from policies.redis_wire import Wire
from policies.reservation import drain, hold
from policies.slices import SlicedLedger

WORKERS = 24
LEASE_S = 4.0
"""Short, so that the run can wait for what was left behind."""
REPLICAS = 4
KEYS = 6
SMALL, LARGE = frozenset({"small"}), frozenset({"small", "large"})
REFUSED_PAUSE_S = 0.004


class Load:
    """The requests of one gateway."""

    def __init__(self, sliced: SlicedLedger, plain: RedisLedger, journal: Journal, name: str, seed: int) -> None:
        self.is_over = False
        self._sliced = sliced
        self._plain = plain
        self._journal = journal
        self._name = name
        self._chance = random.Random(seed)
        self._number = 0
        self._everyone = [Caller("", f"k{number}") for number in range(KEYS)]

    async def work(self, served: list[tuple[int, ChaosTenant]]) -> None:
        """Make one request after another."""
        weights = [tenant.weight for _, tenant in served]
        while not self.is_over:
            for at, tenant in self._chance.choices(served, weights, k=16):
                await self._request(at, tenant)
            await asyncio.sleep(0)

    async def _request(self, at: int, tenant: ChaosTenant) -> None:
        chance, self._number = self._chance, self._number + 1
        number, key, fate = self._number, chance.randrange(KEYS), chance.random()
        amount = chance.randrange(1, 2000)
        cost = chance.randrange(amount + 1) if fate > 0.02 else amount + chance.randrange(300)
        ledger = self._plain if tenant.plain else self._sliced
        tiers = LARGE if chance.random() < 0.5 else SMALL
        wanted = Hold(
            f"{self._name}:{number}", Caller(tenant.policy.tenant, f"k{key}"), tenant.policy, amount, tiers, LEASE_S
        )
        facts = number, at, key, tenant.plain, amount
        if fate > 0.998:
            await self._forgotten(ledger, wanted, facts)
        elif fate > 0.96:
            task = asyncio.create_task(self._held(ledger, wanted, facts, cost, is_slow=True))
            for _ in range(chance.randrange(4)):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            outcome = await self._held(ledger, wanted, facts, cost, is_slow=fate > 0.9)
            if fate < 0.05 and outcome == Outcome.RAN:
                with contextlib.suppress(Unavailable, BudgetExhausted):
                    await ledger.reserve(wanted)
                await ledger.settle(wanted, Cost(cost + 7))

    async def _held(
        self, ledger: SlicedLedger | RedisLedger, wanted: Hold, facts: tuple[int, int, int, bool, int], cost: int,
        *, is_slow: bool,
    ) -> Outcome:  # fmt: skip
        """Carry one request through the reservation that the pipeline uses."""
        number, at, key, plain, amount = facts
        asked_s, place, outcome = monotonic(), None, Outcome.CANCELLED
        write = self._journal.write
        try:
            async with hold(
                ledger, wanted.reservation_id, wanted.caller, wanted.policy, amount, wanted.tiers, LEASE_S
            ) as reservation:
                granted_s = monotonic()
                try:
                    if is_slow:
                        await asyncio.sleep(self._chance.random() * 0.02)
                    outcome = Outcome.RAN
                finally:
                    spent = cost if outcome == Outcome.RAN else cost // 2
                    reservation.charge(spent, {"small": spent - spent // 3, "large": spent // 3})
                    place = write(number, at, outcome, key, plain, amount, spent, asked_s, granted_s, monotonic())
        except asyncio.CancelledError:
            if place is None:
                now_s = monotonic()
                place = write(number, at, Outcome.ABANDONED, key, plain, amount, 0, asked_s, now_s, now_s)
            raise
        except (BudgetExhausted, Unavailable) as refusal:
            outcome = Outcome.REFUSED if isinstance(refusal, BudgetExhausted) else Outcome.UNAVAILABLE
            write(number, at, outcome, key, plain, amount, 0, asked_s, monotonic(), monotonic())
            await asyncio.sleep(REFUSED_PAUSE_S)
        finally:
            if place is not None:
                self._journal.settled(place)
        return outcome

    async def _forgotten(
        self, ledger: SlicedLedger | RedisLedger, wanted: Hold, facts: tuple[int, int, int, bool, int]
    ) -> None:
        """Reserve and never settle, as a bug would."""
        number, at, key, plain, amount = facts
        asked_s, outcome = monotonic(), Outcome.FORGOTTEN
        try:
            await ledger.reserve(wanted)
        except BudgetExhausted:
            outcome = Outcome.REFUSED
        except Unavailable:
            outcome = Outcome.UNAVAILABLE
        self._journal.write(number, at, outcome, key, plain, amount, 0, asked_s, monotonic(), monotonic())


async def reap_often(sliced: SlicedLedger, is_over: asyncio.Event) -> None:
    """Reap and deliver, as the gateway's background task does, only more often."""
    while not is_over.is_set():
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.5):
                await is_over.wait()
        await sliced.reap()


async def serve(url: str, journal: Journal, skew_s: float, seed: int, survives: bool) -> None:
    """Serve until standard input ends."""
    clock = SkewedClock(skew_s)
    name = f"g{seed}"
    served = [(at, one) for at, one in enumerate(tenants()) if survives or not one.survivors_only]
    async with Wire(url, timeout_s=0.05) as wire:
        plain = RedisLedger(wire, clock, replicas=REPLICAS)
        async with SlicedLedger(plain, url, clock).running() as sliced:
            print(name, sliced.replica, flush=True)
            load, is_over = Load(sliced, plain, journal, name, seed), asyncio.Event()
            reaping = asyncio.create_task(reap_often(sliced, is_over))
            workers = [asyncio.create_task(load.work(served)) for _ in range(WORKERS)]
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            load.is_over = True
            await asyncio.gather(*workers)
            await drain(10.0)
            is_over.set()
            await reaping
            await asyncio.sleep(LEASE_S + 0.2)
            await sliced.reap()
            await plain.deliver()


def main() -> None:
    """Run one gateway."""
    url, path, skew_s, seed, survives = sys.argv[1:]
    uvloop.run(serve(url, Journal(Path(path)), float(skew_s), int(seed), survives == "1"))


if __name__ == "__main__":
    main()
