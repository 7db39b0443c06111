"""The ledger under fire: four gateways on one Redis, killed, hung and skewed, and whether its books tell the truth.

    python -m benchmarks.chaos_ledger [--requests 1000000] [--json benchmarks/results/chaos_ledger.json]

Four processes run the real reservations and ledgers (three quarters of the requests on leased slices, the rest in Redis
one by one) with wall clocks that are hours wrong. Two of them are killed (`kill -9`) and replaced over and over; Redis
(append-only file) is hung, killed and started again. Requests are cancelled, settled twice, settled above their hold,
and never settled. What is checked:

- conservation: every half second, in one atomic step in Redis, the sums of every line are those of the holds, reaped
  holds and slices that make it up;
- exact books: what was charged is what the requests of surviving gateways have cost, to the nano-USD, and what killed
  ones had in flight is charged at least at its cost and flagged;
- overshoot: no window is used beyond its limit by more than the requests then in flight, or in slices of that time,
  cost above their holds;
- no leaked hold: when the last lease is over nothing is reserved;
- no false block: a refusal counts as false when, at every moment while it was decided, all that other requests could
  possibly have held left room for it. Refusals within two seconds of an outage of the store are not judged.

`benchmarks.chaos_judge` says how false blocks are told.
"""

import argparse
import json
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import redis

from benchmarks.chaos_journal import RECORD, tenants
from benchmarks.chaos_judge import Gateway, Judge, Run, verdict
from policies.redis_draws import keys_of
from policies.redis_scripts import Script
from tests.redis_server import RedisServer

GATEWAYS, SURVIVORS = 4, 2
SKEWS_S = (0.0, -10_800.0, 2_400.0, 93_600.0)
EXCUSED_S = 2.0
AUDIT = (
    Script("reap").text.split("-- Charge expired holds")[0]
    + """
local found = { redis.call('HLEN', HOLDS), redis.call('ZCARD', LEASES), 0 }
local parts = {}
local function count(line, kind, amount)
  local name = line .. SEPARATOR .. kind
  parts[name] = (parts[name] or 0) + amount
end
local function each(key, kind)
  local entries = redis.call('HGETALL', key)
  for at = 1, #entries, 2 do
    local amount, lines = unpack_hold(entries[at + 1])
    local slice = redis.call('HGET', SLICES, entries[at])
    local state = slice and cmsgpack.unpack(slice) or { 0, 0, 0, {}, 0 }
    for _, line in ipairs(lines) do
      count(line, kind, amount)
      count(line, 'u', state[3])
      if kind == 'r' then count(line, 'l', state[5]) end
    end
  end
end
each(HOLDS, 'r')
each(REAPED, 'u')
local lines = redis.call('HGETALL', LINES)
for at = 1, #lines, 2 do
  local kind, value = string.sub(lines[at], -1), tonumber(lines[at + 1])
  if kind == 'r' or kind == 'l' then
    if value ~= (parts[lines[at]] or 0) or value < 0 then found[3] = found[3] + 1 end
    parts[lines[at]] = nil
  elseif (kind == 's' or kind == 'u') and value < 0 then
    found[3] = found[3] + 1
  end
end
for name, amount in pairs(parts) do
  if amount ~= 0 and string.sub(name, -1) ~= 'u' then found[3] = found[3] + 1 end
end
return found
"""
)
"""Counts open holds, leases, and lines whose sums are not those of their parts."""


class Controller:
    """Starts, kills, audits and finally judges."""

    def __init__(self, requests: int, seed: int) -> None:
        self._requests = requests
        self._chance = random.Random(seed)
        self._server = RedisServer()
        self._run = Run(Path(tempfile.mkdtemp(prefix="headgate-chaos-")))
        self._policies = [one.policy for one in tenants()]

    def run(self) -> dict[str, Any]:
        """Do it all and return the findings."""
        began_s = time.monotonic()
        self._server.start()
        try:
            slots = [self._start(at) for at in range(GATEWAYS)]
            self._storm(slots)
            loaded_s = time.monotonic() - began_s
            for gateway in slots:
                assert gateway.process.stdin is not None
                gateway.process.stdin.close()
            for gateway in slots:
                gateway.process.wait(120)
                assert gateway.process.returncode == 0, "a gateway ended badly"
            leaked = self._reap_what_is_left()
            return Judge(self._run, self._client(), leaked).findings() | {"load_s": round(loaded_s, 1)}
        finally:
            for gateway in self._run.incarnations:
                if gateway.process.poll() is None:
                    gateway.process.kill()
                with gateway.process:  # closes its pipes and waits
                    pass
            self._server.close()
            shutil.rmtree(self._run.folder)

    def _storm(self, slots: list[Gateway]) -> None:
        """Kill and hang in turn, each at least once, until enough requests were made."""
        chance = self._chance
        kill_at_s = time.monotonic() + 1.5
        store_at_s = time.monotonic() + 2.5
        while self._made() < self._requests or not (self._run.outages and len(self._run.incarnations) > GATEWAYS):
            time.sleep(0.5)
            self._audit()
            now_s = time.monotonic()
            if now_s >= kill_at_s:
                at = chance.randrange(SURVIVORS, GATEWAYS)
                self._kill(slots[at])
                slots[at] = self._start(at)
                kill_at_s = now_s + chance.uniform(2.0, 6.0)
            if now_s >= store_at_s:
                self._trouble_store()
                store_at_s = now_s + chance.uniform(6.0, 12.0)
            for gateway in slots:
                assert gateway.process.poll() is None, f"a gateway died of itself: {gateway.process.returncode}"

    def _start(self, at: int) -> Gateway:
        seed = len(self._run.incarnations)
        journal = self._run.folder / f"{seed}.journal"
        command = [
            sys.executable, "-m", "benchmarks.chaos_gateway", self._server.url, str(journal), str(SKEWS_S[at]),
            str(seed), str(int(at < SURVIVORS)),
        ]  # fmt: skip
        with (self._run.folder / f"{seed}.log").open("w") as log:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
            )
        gateway = Gateway(process, journal, seed, at < SURVIVORS)
        assert process.stdout is not None
        gateway.replica = process.stdout.readline().split()[-1]
        self._run.incarnations.append(gateway)
        return gateway

    def _kill(self, gateway: Gateway) -> None:
        gateway.killed_at_s = time.monotonic()
        gateway.process.kill()
        gateway.process.wait()

    def _trouble_store(self) -> None:
        began_s = time.monotonic()
        if self._chance.random() < 0.5:
            self._run.redis_hangs += 1
            self._server.pause()
            time.sleep(self._chance.uniform(0.05, 0.6))
            self._server.resume()
        else:
            self._run.redis_kills += 1
            self._server.kill()
            time.sleep(self._chance.uniform(0.0, 0.5))
            self._server.start()
        self._run.outages.append((began_s, time.monotonic() + EXCUSED_S))

    def _made(self) -> int:
        return sum(one.journal.stat().st_size // RECORD.size for one in self._run.incarnations if one.journal.exists())

    def _audit(self) -> tuple[int, int]:
        """Check every line against its parts; return open holds and leases."""
        holds = leases = 0
        with self._client() as client:
            for policy in self._policies:
                keys = keys_of(policy.tenant)
                found = client.eval(AUDIT, len(keys), *keys)
                holds, leases = holds + found[0], leases + found[1]
                self._run.audits += 1
                self._run.unbalanced += found[2]
        return holds, leases

    def _reap_what_is_left(self) -> int:
        """Let the last leases end, reap, and return how many holds are left."""
        reap = Script("reap")
        until_s = time.monotonic() + 30.0
        while True:
            with self._client() as client:
                for policy in self._policies:
                    keys = keys_of(policy.tenant)
                    while client.eval(reap.text, len(keys), *keys, "0", 1000, 2 * 86_400_000):
                        pass
            holds, leases = self._audit()
            if not holds + leases or time.monotonic() > until_s:
                return holds + leases
            time.sleep(0.5)

    def _client(self) -> redis.Redis:
        return redis.Redis(unix_socket_path=str(self._server.socket), socket_timeout=30)


def chaos(requests: int, seed: int = 1) -> dict[str, Any]:
    """Run the chaos with about this many requests and return the findings."""
    return Controller(requests, seed).run()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    began_s = time.monotonic()
    findings = chaos(options.requests, options.seed)
    problems = verdict(findings)
    findings |= {
        "wall_s": round(time.monotonic() - began_s, 1),
        "verdict": problems or "all hold",
        "command": f"python -m benchmarks.chaos_ledger --requests {options.requests} --seed {options.seed}",
        "machine": {
            "cpus": os.cpu_count(), "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(), "redis": _redis_version(),
        },
    }  # fmt: skip
    text = json.dumps(findings, indent=1)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")
    return 1 if problems else 0


def _redis_version() -> str:
    binary = shutil.which("redis-server") or shutil.which("valkey-server")
    assert binary is not None
    return subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
