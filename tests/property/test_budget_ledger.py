"""Any order of holds, settlements, repeats and restarts keeps the books exact, and nobody is blocked falsely."""

import asyncio
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from core.clock import ManualClock
from core.errors import BudgetExhausted
from core.identity import Caller
from core.plan import Standing
from core.rules import Budget, TenantPolicy
from policies.budgets import Account, account_of
from policies.ledger import LEASE_S, Balance, BudgetLedger, Cost, Hold, Treasury
from policies.ledger_memory import MemoryLedger
from policies.ledger_redis import RedisLedger
from policies.ledger_sqlite import SqliteLedger
from policies.redis_wire import Wire
from policies.slices import SlicedLedger
from policies.windows import PARTS, part_s, window_at
from tests.policy_samples import CALLER, OTHER_KEY, tenant_policy
from tests.redis_server import BINARY, WHY_NOT, RedisServer

POLICY = tenant_policy(
    """
budgets:
  - {window: hour, zone: Europe/Berlin, limit_usd: "0.000001"}
  - {window: day, zone: Europe/Berlin, limit_usd: "0.000002", when_exhausted: small_only}
  - {window: day, zone: Europe/Berlin, limit_usd: "0.000003"}
  - {window: day, zone: America/New_York, limit_usd: "0.0000015", per: key}
  - {window: month, limit_usd: "0.000004", tier: large, when_exhausted: cache_only}
  - {window: hour, limit_usd: "0.0000015", rolling: true, per: user}
  - {window: hour, limit_usd: "0.0000018", rolling: true}
  - {window: day, limit_usd: "0.0000001", soft: true, alerts: ["0.5", "1"]}
"""
)
CALLERS = [CALLER, OTHER_KEY, replace(CALLER, user="ada"), replace(OTHER_KEY, user="ada")]
# A night in which Berlin's clocks go back while New York's have not yet.
START = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)
# Round figures make budgets run out exactly; odd ones make sums that do not.
AMOUNTS = st.sampled_from([0, 1, 250, 500, 1000]) | st.integers(0, 900)
Line = tuple[Account, str]


@dataclass
class Known:
    """The model's view of one hold."""

    hold: Hold
    lines: list[Line]
    leased_until: datetime
    state: str = "open"
    charged: dict[Line, int] = field(default_factory=dict)


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger and a naive model of it side by side."""

    ids = Bundle("ids")

    def make(self) -> BudgetLedger:
        return MemoryLedger(self.clock)

    @initialize()
    def open(self) -> None:
        self.clock = ManualClock(START)
        self.runner = asyncio.Runner()
        self.ledger = self.make()
        self.holds: dict[str, Known] = {}
        self.excess: dict[Line, int] = defaultdict(int)
        self.granted: dict[Line, int] = defaultdict(int)
        self.grants = 0

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.close()

    @rule(
        target=ids,
        amount=AMOUNTS,
        caller=st.sampled_from(CALLERS),
        tiers=st.sampled_from([frozenset({"small"}), frozenset({"large"}), frozenset({"small", "large"})]),
    )
    def reserve(self, amount: int, caller: Caller, tiers: frozenset[str]) -> str:
        id_ = f"r{len(self.holds)}"
        self.reserve_as(id_, amount, caller, tiers)
        return id_

    def reserve_as(self, id_: str, amount: int, caller: Caller, tiers: frozenset[str]) -> None:
        hold = Hold(id_, caller, POLICY, amount, tiers)
        fits = all(amount <= self.free(budget, line) for budget, line in self.drawn_on(hold) if not budget.soft)
        try:
            self.runner.run(self.ledger.reserve(hold))
            assert fits or amount == 0, "granted although a budget had no room"
            state = "open"
        except BudgetExhausted:
            assert not fits, "refused although every budget had room"
            assert amount > 0
            state = "refused"
        lines = list(dict.fromkeys(line for _, line in self.drawn_on(hold)))
        leased_until = datetime.fromtimestamp(self.clock.now().timestamp() + LEASE_S, UTC)
        self.holds[id_] = Known(hold, lines, leased_until, state)

    @rule(id_=ids)
    def reserve_again(self, id_: str) -> None:
        if self.holds[id_].state in ("open", "settled", "reaped"):
            self.runner.run(self.ledger.reserve(self.holds[id_].hold))

    @rule(id_=ids, small=AMOUNTS, large=AMOUNTS)
    def settle(self, id_: str, small: int, large: int) -> None:
        known = self.holds[id_]
        if known.state not in ("open", "settled", "reaped"):
            return
        parts = {tier: part for tier, part in (("small", small), ("large", large)) if tier in known.hold.tiers}
        cost = Cost(sum(parts.values()), parts)
        self.runner.run(self.ledger.settle(known.hold, cost))
        if known.state in ("open", "reaped"):
            known.state = "settled"
            known.charged = {line: cost.in_tier(line[0].tier) for line in known.lines}
            for line in known.lines:
                self.excess[line] += max(0, cost.in_tier(line[0].tier) - known.hold.amount_nano_usd)

    @rule(id_=consumes(ids))
    def settle_for_nothing(self, id_: str) -> None:
        self.settle(id_, 0, 0)

    @rule(seconds=st.sampled_from([1.0, 61.0, LEASE_S, 3600.0, 7200.0]))
    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.catch_up()

    def catch_up(self) -> None:
        """Let happen what happens by itself as time goes by."""

    @rule()
    def reap(self) -> None:
        expired = [k for k in self.holds.values() if k.state == "open" and k.leased_until <= self.clock.now()]
        assert self.runner.run(self.ledger.reap()) == len(expired)
        for known in expired:
            known.state = "reaped"
            known.charged = dict.fromkeys(known.lines, known.hold.amount_nano_usd)

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "holds"):
            return
        for balance in self.runner.run(self.ledger.balances(POLICY)):
            lines = self.counted(balance.budget, balance.account, balance.window_id)
            in_slices = balance.reserved_nano_usd - sum(self.reserved(line) for line in lines)
            assert 0 <= in_slices <= self.unused()
            assert balance.spent_nano_usd == sum(self.spent(line) for line in lines)
            assert balance.unconfirmed_nano_usd == sum(self.charged(line, "reaped") for line in lines)
            assert balance.granted_nano_usd == sum(self.granted[line] for line in lines)
            assert min(balance.reserved_nano_usd, balance.spent_nano_usd, balance.unconfirmed_nano_usd) >= 0
            used = balance.reserved_nano_usd + balance.spent_nano_usd
            assert balance.free_nano_usd + used == balance.limit_nano_usd
            used -= in_slices
            if not balance.budget.soft and not (balance.budget.rolling and self.grants):  # a grant rolls off as well
                assert used - balance.limit_nano_usd <= sum(self.excess[line] for line in lines)

    @rule(at=st.integers(0, len(POLICY.budgets) - 1), caller=st.sampled_from(CALLERS), amount=st.integers(1, 700))
    def grant(self, at: int, caller: Caller, amount: int) -> None:
        account = account_of(POLICY.budgets[at], "acme", caller.key_id, caller.user)
        self.grants += 1
        for _ in range(2):
            self.runner.run(cast(Treasury, self.ledger).grant(POLICY, account, amount, f"g{self.grants}"))
        self.granted[self.line(POLICY.budgets[at], account)] += amount

    @rule(at=st.integers(0, len(POLICY.budgets) - 1), caller=st.sampled_from(CALLERS))
    def reset(self, at: int, caller: Caller) -> None:
        budget = POLICY.budgets[at]
        account = account_of(budget, "acme", caller.key_id, caller.user)
        self.grants += 1
        self.runner.run(cast(Treasury, self.ledger).reset(POLICY, account, f"g{self.grants}"))
        line = self.line(budget, account)
        lines = self.counted(budget, account, line[1])
        missing = sum(self.spent(one) for one in lines) - sum(self.granted[one] for one in lines)
        self.granted[line] += max(0, missing)

    @rule(caller=st.sampled_from(CALLERS))
    def read_standing(self, caller: Caller) -> None:
        """A standing tells the least that is free among the hard budgets of all tiers, unless one is used up."""
        hold = Hold("", caller, POLICY, 0)
        free = [self.free(budget, line) for budget, line in self.drawn_on(hold) if not budget.soft and not line[0].tier]
        told = self.runner.run(self.ledger.standing(caller, POLICY))
        assert told.free_nano_usd is not None
        if min(free) > 0 and not self.unused():
            assert told.free_nano_usd == min(free)
        elif not self.unused():
            assert told.free_nano_usd <= 0

    def unused(self) -> int:
        """Return what replicas hold for requests to come."""
        return 0

    def line(self, budget: Budget, account: Account) -> Line:
        if budget.rolling:
            return account, str(int(self.clock.now().timestamp()) // part_s(budget.window))
        return account, window_at(budget.window, budget.zone, self.clock.now()).window_id

    def counted(self, budget: Budget, account: Account, window_id: str) -> list[Line]:
        """Return the lines that count in a window: itself, or the parts of a rolling one."""
        if not budget.rolling:
            return [(account, window_id)]
        return [(account, str(part)) for part in range(int(window_id) - PARTS, int(window_id) + 1)]

    def free(self, budget: Budget, line: Line) -> int:
        lines = self.counted(budget, *line)
        used = sum(self.reserved(one) + self.spent(one) - self.granted[one] for one in lines)
        return budget.limit_nano_usd - used

    def drawn_on(self, hold: Hold) -> list[tuple[Budget, Line]]:
        return [
            (budget, self.line(budget, account))
            for budget in POLICY.budgets
            for account in (account_of(budget, "acme", hold.caller.key_id, hold.caller.user),)
            if not account.tier or account.tier in hold.tiers
        ]

    def reserved(self, line: Line) -> int:
        return sum(k.hold.amount_nano_usd for k in self.holds.values() if k.state == "open" and line in k.lines)

    def spent(self, line: Line) -> int:
        return self.charged(line, "settled") + self.charged(line, "reaped")

    def charged(self, line: Line, state: str) -> int:
        return sum(k.charged[line] for k in self.holds.values() if k.state == state and line in k.lines)


class SqliteLedgerMachine(LedgerMachine):
    """The same with a file, and restarts at any moment."""

    def make(self) -> BudgetLedger:
        self.folder = Path(tempfile.mkdtemp())
        return SqliteLedger(self.folder / "ledger.db", self.clock, linger_s=0.0)

    @rule()
    def restart(self) -> None:
        """Start again from the file; what was settled is forgotten as an id, which a new process never repeats."""
        assert isinstance(self.ledger, SqliteLedger)
        self.ledger.close()
        self.ledger = SqliteLedger(self.folder / "ledger.db", self.clock, linger_s=0.0)
        for known in self.holds.values():
            if known.state in ("settled", "reaped"):
                known.state = f"{known.state} before the restart"

    def charged(self, line: Line, state: str) -> int:
        return super().charged(line, state) + super().charged(line, f"{state} before the restart")

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            assert isinstance(self.ledger, SqliteLedger)
            self.ledger.close()
            shutil.rmtree(self.folder)
        super().teardown()


class RedisLedgerMachine(LedgerMachine):
    """The same on a real server, which is emptied for every example."""

    server: RedisServer

    def make(self) -> BudgetLedger:
        self.wire = Wire(self.server.url, timeout_s=10.0)
        self.runner.run(self.emptied())
        return RedisLedger(self.wire, self.clock, timeout_s=10.0, server_time=False)

    async def emptied(self) -> None:
        await self.wire.execute_command("FLUSHALL")

    def teardown(self) -> None:
        if hasattr(self, "wire"):
            self.runner.run(self.wire.aclose())
        super().teardown()


class SlicedLedgerMachine(RedisLedgerMachine):
    """Two replicas that lease slices, each request on one of them; what both hold unused is the only difference."""

    def make(self) -> BudgetLedger:
        self.wire = Wire(self.server.url, timeout_s=10.0)
        self.runner.run(self.emptied())
        self.stack = AsyncExitStack()
        self.replicas = [self.runner.run(self.replica()) for _ in range(2)]
        self.homes: dict[str, SlicedLedger] = {}
        return Homes(self.replicas, self.homes)

    async def replica(self) -> SlicedLedger:
        wire = await self.stack.enter_async_context(Wire(self.server.url, timeout_s=10.0))
        inner = RedisLedger(wire, self.clock, timeout_s=10.0, server_time=False)
        ledger = await self.stack.enter_async_context(
            SlicedLedger(inner, self.server.url, self.clock, patience_s=5.0).running()
        )
        while not ledger.hears:  # noqa: ASYNC110  it connects in the background
            await asyncio.sleep(0.001)
        return ledger

    @rule(amount=st.integers(1, 20), times=st.integers(3, 12), at=st.integers(0, 1), caller=st.sampled_from(CALLERS))
    def be_busy(self, amount: int, times: int, at: int, caller: Caller) -> None:
        """Have requests that make a replica lease slices, and let it."""
        for _ in range(times):
            id_ = f"r{len(self.holds)}"
            self.homes[id_] = self.replicas[at]
            self.reserve_as(id_, amount, caller, frozenset({"small"}))
            self.runner.run(asyncio.sleep(0))
            if self.holds[id_].state == "open":
                self.settle(id_, amount // 2, 0)

    @rule(at=st.integers(0, 1))
    def give_back(self, at: int) -> None:
        self.runner.run(self.replicas[at].give_back())

    def catch_up(self) -> None:
        """Renew leases: a replica that sleeps for longer than they last is the business of other tests."""
        for one in self.replicas:
            self.runner.run(one.tend())

    def unused(self) -> int:
        return sum(one.unused_nano_usd for one in self.replicas)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.runner.run(self.stack.aclose())
        super().teardown()


class Homes:
    """A ledger made of several replicas: a request stays with the one that it came to first."""

    def __init__(self, replicas: list[SlicedLedger], homes: dict[str, SlicedLedger]) -> None:
        self.replicas = replicas
        self.homes = homes

    def home(self, hold: Hold) -> SlicedLedger:
        return self.homes.setdefault(hold.reservation_id, self.replicas[len(self.homes) % len(self.replicas)])

    async def standing(self, caller: Caller, policy: TenantPolicy) -> Standing:
        return await self.replicas[0].standing(caller, policy)

    async def reserve(self, hold: Hold) -> None:
        await self.home(hold).reserve(hold)

    async def settle(self, hold: Hold, cost: Cost) -> None:
        await self.home(hold).settle(hold, cost)

    async def reap(self) -> int:
        return sum([await one.reap() for one in self.replicas])

    async def balances(self, policy: TenantPolicy) -> tuple[Balance, ...]:
        await self.replicas[0].balances(policy)
        return await self.replicas[1].balances(policy)

    async def grant(self, policy: TenantPolicy, account: Account, nano_usd: int, grant_id: str) -> None:
        await self.replicas[0].grant(policy, account, nano_usd, grant_id)

    async def reset(self, policy: TenantPolicy, account: Account, grant_id: str) -> None:
        await self.replicas[0].balances(policy)
        await self.replicas[1].reset(policy, account, grant_id)


PATIENT: dict[str, Any] = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
TestMemoryLedger = LedgerMachine.TestCase
TestMemoryLedger.settings = settings(max_examples=60, stateful_step_count=40, **PATIENT)
TestSqliteLedger = SqliteLedgerMachine.TestCase
TestSqliteLedger.settings = settings(max_examples=15, stateful_step_count=30, **PATIENT)


TestRedisLedger = pytest.mark.redis(pytest.mark.skipif(BINARY is None, reason=WHY_NOT)(RedisLedgerMachine.TestCase))
TestRedisLedger.settings = settings(max_examples=15, stateful_step_count=30, **PATIENT)
TestSlicedLedger = pytest.mark.redis(pytest.mark.skipif(BINARY is None, reason=WHY_NOT)(SlicedLedgerMachine.TestCase))
TestSlicedLedger.settings = settings(max_examples=15, stateful_step_count=30, **PATIENT)


@pytest.fixture(scope="module", autouse=True)
def redis_server() -> Iterator[None]:
    """Start one server for all examples, and one only if it can be."""
    if BINARY is None:
        yield
        return
    RedisLedgerMachine.server = RedisServer()
    RedisLedgerMachine.server.start()
    yield
    RedisLedgerMachine.server.close()
