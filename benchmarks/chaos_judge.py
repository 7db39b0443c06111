"""Whether the books of a chaos run tell the truth: what Redis says beside what the gateways wrote down.

The verdict on false blocks is never too hard: a request counts as holding its amount from before it asked until 100 ms
after it was settled, and what a killed gateway held counts from its death on.
"""

import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import redis
from numpy.typing import NDArray

from benchmarks.chaos_journal import DTYPE, NEVER, RECORD, Outcome, tenants, wall_ahead_s
from policies.redis_draws import SEPARATOR, keys_of
from policies.slices import SLICE_LIFE_S

GRANTED = (Outcome.RAN, Outcome.CANCELLED, Outcome.FORGOTTEN)
RETURN_S = 0.1
Records = NDArray[np.void]


@dataclass(slots=True)
class Gateway:
    """One incarnation of a gateway process."""

    process: subprocess.Popen[str]
    journal: Path
    seed: int
    survives: bool
    replica: str = ""
    killed_at_s: float | None = None


@dataclass(slots=True)
class Run:
    """Everything that happened."""

    folder: Path
    incarnations: list[Gateway] = field(default_factory=list)
    outages: list[tuple[float, float]] = field(default_factory=list)
    audits: int = 0
    unbalanced: int = 0
    redis_kills: int = 0
    redis_hangs: int = 0


class Judge:
    """Compares what Redis says with what the gateways wrote down."""

    def __init__(self, run: Run, client: redis.Redis, leaked: int) -> None:
        self._run = run
        self._leaked = leaked
        self._ahead_s = wall_ahead_s()
        self._lines: dict[str, dict[str, dict[str, int]]] = {}
        self._reaped: dict[str, list[tuple[str, int, list[str]]]] = {}
        with client:
            for one in tenants():
                keys = keys_of(one.policy.tenant)
                self._lines[one.policy.tenant] = _lines(cast(dict[bytes, bytes], client.hgetall(keys[0])))
                self._reaped[one.policy.tenant] = _reaped(cast(dict[bytes, bytes], client.hgetall(keys[3])))
        self._records = {one.seed: _read(one.journal) for one in run.incarnations}

    def findings(self) -> dict[str, Any]:
        """Return counts and verdicts."""
        everything = np.concatenate(list(self._records.values()))
        outcomes = Counter({one.name.lower(): int((everything["outcome"] == one).sum()) for one in Outcome})
        books = {one.policy.tenant: self._books(at) for at, one in enumerate(tenants())}
        blocks = [self._false_blocks(at) for at in range(len(tenants()))]
        took_s = everything["granted_s"] - everything["asked_s"]
        return {
            "requests": len(everything),
            "outcomes": dict(outcomes),
            "gateway_kills": sum(one.killed_at_s is not None for one in self._run.incarnations),
            "redis_kills": self._run.redis_kills,
            "redis_hangs": self._run.redis_hangs,
            "conservation": {"audits": self._run.audits, "lines_out_of_balance": self._run.unbalanced},
            "books": books,
            "books_that_lie": sum(not book["holds"] for book in books.values()),
            "windows_beyond_their_bound": sum(book["beyond_bound"] for book in books.values()),
            "leaked_holds": self._leaked,
            "refusals": {
                "judged": sum(block[0] for block in blocks),
                "not_judged": sum(block[1] for block in blocks),
                "false": sum(block[2] for block in blocks),
                "false_by_tenant": {
                    one.policy.tenant: block[2] for one, block in zip(tenants(), blocks, strict=True) if block[2]
                },
            },
            "reserve_ms": {
                one.name.lower(): {
                    name: round(float(np.quantile(took_s[everything["outcome"] == one], share)) * 1000, 3)
                    for name, share in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))
                }
                for one in (Outcome.RAN, Outcome.REFUSED, Outcome.UNAVAILABLE)
                if outcomes[one.name.lower()]
            },
        }

    def _of(self, at: int) -> Iterator[tuple[Gateway, Records]]:
        for gateway in self._run.incarnations:
            records = self._records[gateway.seed]
            yield gateway, records[records["tenant"] == at]

    def _books(self, at: int) -> dict[str, Any]:
        """Check a tenant's charges: exact for survivors, at least the cost and flagged for the killed."""
        tenant = tenants()[at]
        lines = self._lines[tenant.policy.tenant]
        budget = max(tenant.policy.budgets, key=lambda one: (one.per == "tenant" and one.tier is None, one.window))
        spent = unconfirmed = 0
        for line, sums in lines.items():
            key_id, _, tier, window, *_ = line.split(SEPARATOR)
            kind = f"rolling-{budget.window}" if budget.rolling else budget.window
            if not key_id and not tier and window == kind:
                spent, unconfirmed = spent + sums.get("s", 0), unconfirmed + sums.get("u", 0)
        surviving = killed = killed_least = forgotten = 0
        for gateway, records in self._of(at):
            ran = records[np.isin(records["outcome"], (Outcome.RAN, Outcome.CANCELLED))]
            lost = records[records["outcome"] == Outcome.FORGOTTEN]
            if gateway.killed_at_s is None:
                surviving += int(ran["cost"].sum())
                forgotten += int(lost["amount"].sum())
            else:
                killed += int(ran["cost"].sum())
                killed_least += int(np.minimum(ran["cost"], ran["amount"]).sum())
        confirmed = spent - unconfirmed
        is_open = tenant.policy.on_store_outage == "open"
        holds = surviving <= confirmed <= surviving + killed and unconfirmed >= 0
        if not is_open:  # a killed gateway takes the costs of requests without a hold along
            holds = holds and spent >= surviving + killed_least
        if tenant.survivors_only:
            holds = holds and confirmed == surviving and unconfirmed <= forgotten
        return {
            "spent_nano_usd": spent, "unconfirmed_nano_usd": unconfirmed, "cost_of_survivors": surviving,
            "cost_of_killed": killed, "exact": tenant.survivors_only, "holds": bool(holds),
            "beyond_bound": 0 if is_open or tenant.policy.on_store_outage == "local_share" else self._beyond(at),
        }  # fmt: skip

    def _beyond(self, at: int) -> int:
        """Count windows that were used beyond their limit by more than the stated bound."""
        tenant, beyond = tenants()[at], 0
        records = np.concatenate([records for _, records in self._of(at)])
        granted = records[np.isin(records["outcome"], GRANTED)]
        wall_s = granted["asked_s"] + self._ahead_s
        for budget in tenant.policy.budgets:
            if budget.window != "minute" or budget.rolling:
                continue
            for line, sums in self._lines[tenant.policy.tenant].items():
                key_id, _, _, window, _, _, ends_ms = line.split(SEPARATOR)
                if window != "minute" or bool(key_id) != (budget.per == "key"):
                    continue
                over = sums.get("s", 0) + sums.get("r", 0) - budget.limit_nano_usd
                if over <= 0:
                    continue
                end_s = int(ends_ms) / 1000
                here = (wall_s >= end_s - 61) & (wall_s < end_s + 1)
                if key_id:
                    here &= granted["key"] == int(key_id[1:])
                beyond += over > _in_flight_excess(granted[here])
        return beyond

    def _false_blocks(self, at: int) -> tuple[int, int, int]:
        """Return how many refusals were judged, not judged, and false."""
        tenant = tenants()[at]
        records = np.concatenate([records for _, records in self._of(at)])
        refused = records[records["outcome"] == Outcome.REFUSED]
        if tenant.policy.on_store_outage == "local_share":
            return 0, len(refused), 0
        excused = np.zeros(len(refused), bool)
        for began_s, ended_s in self._run.outages:
            excused |= (refused["granted_s"] >= began_s) & (refused["asked_s"] <= ended_s)
        judged = refused[~excused]
        binding = [self._blocked_by(at, budget, records, judged) for budget in tenant.policy.budgets]
        is_false = np.logical_and.reduce(binding) if binding else np.ones(len(judged), bool)
        return len(judged), int(excused.sum()), int(is_false.sum())

    def _blocked_by(self, at: int, budget: Any, records: Records, judged: Records) -> NDArray[np.bool_]:
        """Tell for each refusal whether `budget` had room for it at every moment."""
        room = np.ones(len(judged), bool)
        if budget.limit_nano_usd >= 10**9:
            return room
        for key in range(256) if budget.per == "key" else (None,):
            mine = judged["key"] == key if key is not None else np.ones(len(judged), bool)
            if not mine.any():
                continue
            its = records if key is None else records[records["key"] == key]
            room[mine] = self._had_room(at, budget, its, judged[mine], key)
        return room

    def _had_room(self, at: int, budget: Any, its: Records, judged: Records, key: int | None) -> NDArray[np.bool_]:
        granted = its[np.isin(its["outcome"], (*GRANTED, Outcome.ABANDONED))]
        lost = self._lost_at(at, budget, key)
        room = np.zeros(len(judged), bool)
        asked, answered = judged["asked_s"] + self._ahead_s, judged["granted_s"] + self._ahead_s
        first, last = granted["asked_s"] + self._ahead_s, granted["granted_s"] + self._ahead_s
        for window in np.unique(np.floor(asked / 60)) if not budget.rolling else (None,):
            if window is None:
                here, ends = np.ones(len(judged), bool), np.floor(last) + 61
                those = np.ones(len(granted), bool)
            else:
                here = np.floor(asked / 60) == window
                ends = np.full(len(granted), NEVER)
                those = (first < (window + 1) * 60) & (last >= window * 60)
            times, uses = _most_used(granted[those], first[those], ends[those], lost, window, self._ahead_s)
            for at_one in np.flatnonzero(here):
                low = max(0, int(np.searchsorted(times, asked[at_one], "right")) - 1)
                high = int(np.searchsorted(times, answered[at_one], "right"))
                peak = int(uses[low:high].max(initial=0)) if len(uses) else 0
                straddles = window is not None and np.floor(answered[at_one] / 60) != window
                room[at_one] = not straddles and judged["amount"][at_one] <= budget.limit_nano_usd - peak
        return room

    def _lost_at(self, at: int, budget: Any, key: int | None) -> list[tuple[float, int, float]]:
        """Return what killed gateways left reserved: Unix time of death, amount and end of its window."""
        died = {one.replica: one for one in self._run.incarnations if one.killed_at_s is not None}
        names = {f"g{one.seed}": one for one in died.values()}
        found = []
        for id_, amount, lines in self._reaped[tenants()[at].policy.tenant]:
            gateway = died.get(id_.split(":")[1]) if id_.startswith("slice:") else names.get(id_.split(":")[0])
            if gateway is None or gateway.killed_at_s is None:
                continue
            for line in lines:
                key_id, _, _, window, _, _, ends_ms = line.split(SEPARATOR)
                kind = f"rolling-{budget.window}" if budget.rolling else budget.window
                if window == kind and (key is None or key_id == f"k{key}"):
                    found.append((gateway.killed_at_s + self._ahead_s, amount, int(ends_ms) / 1000))
        return found


def _most_used(
    granted: Records, first_s: NDArray[np.float64], ends_s: NDArray[np.float64], lost: list[tuple[float, int, float]],
    window: float | None, ahead_s: float,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:  # fmt: skip
    """Return the most that can have been reserved and spent in a window over time: moments, and use from each on."""
    amount, cost = granted["amount"], granted["cost"]
    forgotten = granted["outcome"] == Outcome.FORGOTTEN
    settled_s = granted["settled_s"] + ahead_s + RETURN_S
    changes_s = np.where(cost > amount, granted["settling_s"] + ahead_s, settled_s)
    final = np.where(forgotten | ~np.isfinite(granted["settled_s"]) & (cost <= amount), amount, cost)
    steps = [
        (first_s, amount),
        (np.where(np.isfinite(changes_s), changes_s, 1e18), final - amount),
        (np.where(np.isfinite(ends_s), ends_s, 1e18), -final),
    ]
    here = [entry for entry in lost if window is None or entry[2] == (window + 1) * 60]
    if here:
        steps.append((np.array([entry[0] for entry in here]), np.array([entry[1] for entry in here], np.int64)))
        if window is None:
            steps.append((np.array([entry[2] for entry in here]), -np.array([entry[1] for entry in here], np.int64)))
    times = np.concatenate([step[0] for step in steps])
    deltas = np.concatenate([step[1] for step in steps])
    order = np.lexsort((-deltas, times))
    return times[order], np.cumsum(deltas[order])


def _in_flight_excess(granted: Records) -> int:
    """Return what requests in flight at the last grant, or in slices of that time, cost above their holds."""
    if not len(granted):
        return 0
    last = granted[np.argmax(granted["granted_s"])]
    in_flight = (granted["asked_s"] <= last["granted_s"]) & (granted["settled_s"] >= last["asked_s"] - SLICE_LIFE_S)
    return int(np.maximum(0, granted["cost"] - granted["amount"])[in_flight].sum())


def _lines(fields: dict[bytes, bytes]) -> dict[str, dict[str, int]]:
    lines: dict[str, dict[str, int]] = {}
    for name, value in fields.items():
        line, _, kind = name.decode().rpartition(SEPARATOR)
        lines.setdefault(line, {})[kind] = int(value)
    return lines


def _reaped(fields: dict[bytes, bytes]) -> list[tuple[str, int, list[str]]]:
    found = []
    for id_, packed in fields.items():
        amount, *lines = packed.decode().split("\n")
        found.append((id_.decode(), int(amount), lines))
    return found


def _read(path: Path) -> Records:
    raw = path.read_bytes()
    return np.frombuffer(raw[: len(raw) // RECORD.size * RECORD.size], DTYPE)


def verdict(findings: dict[str, Any]) -> list[str]:
    """Return what went wrong, one line each."""
    zeros = {
        "lines out of balance": findings["conservation"]["lines_out_of_balance"],
        "books that do not agree with what requests cost": findings["books_that_lie"],
        "windows beyond their bound": findings["windows_beyond_their_bound"],
        "leaked holds": findings["leaked_holds"],
        "false blocks": findings["refusals"]["false"],
    }
    return [f"{count} {what}" for what, count in zeros.items() if count]
