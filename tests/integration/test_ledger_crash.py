"""A gateway process that is killed outright: what its file still knows."""

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

from core.clock import ManualClock
from policies.ledger import LEASE_S
from policies.ledger_sqlite import SqliteLedger
from tests.policy_samples import budget_policy

ROOT = Path(__file__).parents[2]
POLICY = budget_policy("0.001")
VICTIM = """
import asyncio, itertools, sys
from pathlib import Path
from core.clock import SystemClock
from policies.ledger import Cost, Hold
from policies.ledger_sqlite import SqliteLedger
from tests.policy_samples import CALLER, budget_policy

async def main():
    ledger = SqliteLedger(Path(sys.argv[1]), SystemClock(), durable_holds=True)
    policy = budget_policy("0.001")
    for number in itertools.count():
        hold = Hold(f"r{number}", CALLER, policy, 100)
        await ledger.reserve(hold)
        print(number, flush=True)
        if number % 2:
            await ledger.settle(hold, Cost(40))

asyncio.run(main())
"""


async def test_a_killed_process_loses_no_hold_that_was_granted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    victim = await asyncio.create_subprocess_exec(
        sys.executable, "-c", VICTIM, str(path), cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert victim.stdout is not None
    async with asyncio.timeout(60):
        granted = [int(await victim.stdout.readline()) for _ in range(50)]
        victim.send_signal(signal.SIGKILL)
        granted += [int(line) for line in (await victim.stdout.read()).split()]
        assert await victim.wait() == -signal.SIGKILL

    clock = ManualClock(datetime.now(UTC))
    ledger = SqliteLedger(path, clock)
    try:
        (before,) = await ledger.balances(POLICY)
        clock.advance(LEASE_S + 60)
        reaped = await ledger.reap()
        (after,) = await ledger.balances(POLICY)
    finally:
        ledger.close()
    count = len(granted)
    # Grants are in the file before they are printed; the kill may have cut off the last settlements or one more grant.
    assert before.reserved_nano_usd == reaped * 100
    assert after.reserved_nano_usd == 0
    assert after.spent_nano_usd == before.spent_nano_usd + reaped * 100
    settled = before.spent_nano_usd // 40
    assert settled + reaped in (count, count + 1)
    assert settled <= (count + 1) // 2
