"""A hold is settled whatever happens to the request, cancellations included."""

import asyncio

import pytest

from core.clock import ManualClock
from core.errors import BudgetExhausted
from policies.ledger import MAX_COST_NANO_USD, Balance, Cost, Hold
from policies.ledger_memory import MemoryLedger
from policies.reservation import drain, hold
from tests.policy_samples import CALLER, budget_policy

POLICY = budget_policy("0.000001")  # 1000 nano-USD


class SlowLedger(MemoryLedger):
    """A memory ledger whose answers take a while, as those of a remote store do."""

    def __init__(self) -> None:
        super().__init__(ManualClock())
        self.may_answer = asyncio.Event()
        self.reserving = asyncio.Event()
        self.settling = asyncio.Event()

    async def reserve(self, hold: Hold) -> None:
        await super().reserve(hold)
        self.reserving.set()
        await self.may_answer.wait()

    async def settle(self, hold: Hold, cost: Cost) -> None:
        self.settling.set()
        await self.may_answer.wait()
        await super().settle(hold, cost)


async def sums(ledger: MemoryLedger) -> tuple[int, int]:
    (balance,) = await ledger.balances(POLICY)
    return balance.reserved_nano_usd, balance.spent_nano_usd


async def test_the_last_charge_counts_and_the_rest_is_released() -> None:
    ledger = MemoryLedger(ManualClock())
    async with hold(ledger, "r1", CALLER, POLICY, 900) as reservation:
        assert await sums(ledger) == (900, 0)
        reservation.charge(10)
        reservation.charge(300)
    assert await sums(ledger) == (0, 300)


async def test_without_a_charge_everything_is_released() -> None:
    ledger = MemoryLedger(ManualClock())
    with pytest.raises(ZeroDivisionError):
        async with hold(ledger, "r1", CALLER, POLICY, 900):
            raise ZeroDivisionError
    assert await sums(ledger) == (0, 0)


async def test_a_refused_hold_leaves_nothing_behind() -> None:
    ledger = MemoryLedger(ManualClock())
    with pytest.raises(BudgetExhausted):
        async with hold(ledger, "r1", CALLER, POLICY, 1001):
            raise AssertionError("the body must not run")
    assert await sums(ledger) == (0, 0)


async def test_settlement_completes_although_the_request_is_cancelled_twice() -> None:
    ledger = SlowLedger()

    async def request() -> None:
        async with hold(ledger, "r1", CALLER, POLICY, 900) as reservation:
            reservation.charge(300)
            await asyncio.Event().wait()

    ledger.may_answer.set()
    task = asyncio.create_task(request())
    await ledger.reserving.wait()
    await asyncio.sleep(0)
    ledger.may_answer.clear()
    task.cancel()
    await ledger.settling.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sums(ledger) == (900, 0)
    ledger.may_answer.set()
    assert await drain(5.0) == 0
    assert await sums(ledger) == (0, 300)


async def test_a_cancellation_while_the_store_grants_gives_the_money_back() -> None:
    ledger = SlowLedger()

    async def request() -> None:
        async with hold(ledger, "r1", CALLER, POLICY, 900):
            raise AssertionError("the body must not run")

    task = asyncio.create_task(request())
    await ledger.reserving.wait()
    assert await sums(ledger) == (900, 0)
    task.cancel()
    await ledger.settling.wait()
    ledger.may_answer.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await sums(ledger) == (0, 0)


async def test_a_settlement_that_fails_is_logged_and_does_not_hide_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    class BrokenLedger(MemoryLedger):
        async def settle(self, hold: Hold, cost: Cost) -> None:
            raise ConnectionError("the store is away")

    ledger = BrokenLedger(ManualClock())
    async with hold(ledger, "r1", CALLER, POLICY, 900) as reservation:
        reservation.charge(300)
    assert await sums(ledger) == (900, 0)
    assert [record.message for record in caplog.records] == ["settlement failed; the lease will charge the hold"]


async def test_a_budget_of_one_tier_is_charged_that_tiers_part() -> None:
    policy = budget_policy("0.000001", more=", tier: large")
    ledger = MemoryLedger(ManualClock())

    async def balance() -> Balance:
        (found,) = await ledger.balances(policy)
        return found

    async with hold(ledger, "r1", CALLER, policy, 900, frozenset({"small", "large"})) as reservation:
        assert (await balance()).reserved_nano_usd == 900
        reservation.charge(500, {"small": 100, "large": 400})
    assert (await balance()).spent_nano_usd == 400
    async with hold(ledger, "r2", CALLER, policy, 900, frozenset({"small"})) as reservation:
        assert (await balance()).reserved_nano_usd == 0
        reservation.charge(500, {"small": 500})
    assert (await balance()).spent_nano_usd == 400


async def test_a_negative_charge_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        async with hold(MemoryLedger(ManualClock()), "r1", CALLER, POLICY, 900) as reservation:
            reservation.charge(-1)


async def test_a_cost_beyond_reason_is_cut_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    ledger = MemoryLedger(ManualClock())
    async with hold(ledger, "r1", CALLER, POLICY, 900) as reservation:
        reservation.charge(10**30, {"small": 10**30})
    assert await sums(ledger) == (0, MAX_COST_NANO_USD)
    assert [record.message for record in caplog.records] == ["a cost beyond reason was cut"]
