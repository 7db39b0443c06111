"""What is known of one decision: its record, whether deciding again gives the same, and what became of the request."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

from core.plan import RegistrySnapshot
from gateway.telemetry.log_reader import LogReader
from gateway.telemetry.receipt_log import ReceiptLog
from policies.loading import PolicySet
from router.receipt import Examination, Receipt, Versions, decode_receipt, examine, price_digest


class Told(msgspec.Struct, frozen=True):
    """One decision as it is told.

    Attributes:
        id: the request's.
        decision: the record as it was written; None for a hit, and for what was refused before a plan.
        identical: whether deciding again from the recorded inputs gives the same bytes; None without a record.
        differs: the keys that come out otherwise.
        changed: `policy`, `router`, `prices`, `program`: what is another version now.
        request: the row of the request log, None while it is not written.
    """

    id: str
    decision: msgspec.Raw | None
    identical: bool | None
    differs: tuple[str, ...]
    changed: tuple[str, ...]
    request: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Decisions:
    """Looks decisions up in the logs of this gateway; for any thread."""

    log: ReceiptLog
    requests: Path
    policies: Callable[[], PolicySet]
    registry: Callable[[], RegistrySnapshot]

    def find(self, request_id: str) -> Told | None:
        """Return what is known, or None when nothing is.

        Raises:
            LogUnreadable: a log cannot be read.
        """
        return told(request_id, self.log.find(request_id), request_row(self.requests, request_id), self._now)

    def _now(self, receipt: Receipt) -> Versions:
        policy = self.policies().get(receipt.inputs.policy.tenant)
        return versions_now(
            receipt, None if policy is None else policy.version, self.log.router, self.registry(), self.log.program
        )


def told(
    request_id: str,
    content: bytes | None,
    row: dict[str, Any] | None,
    now: Callable[[Receipt], Versions] | None = None,
) -> Told | None:
    """Put together what the logs hold; None when they hold nothing."""
    if content is None:
        return None if row is None else Told(request_id, None, None, (), (), row)
    try:
        receipt = decode_receipt(content)
        found = examine(content, None if now is None else now(receipt))
    except ValueError as problem:
        found = Examination(False, (f"unreadable: {problem}",), ())
    return Told(request_id, msgspec.Raw(content), found.identical, found.differs, found.changed, row)


def versions_now(
    receipt: Receipt, policy_version: str | None, router: str, registry: RegistrySnapshot, program: str
) -> Versions:
    """Return the versions by which the receipt's request would be decided now."""
    recorded, policy = receipt.inputs.policy.version, policy_version or "gone"
    narrowing = recorded.partition("/")[2]
    present = tuple(
        registry.deployments[one.name] for one in receipt.inputs.deployments if one.name in registry.deployments
    )
    return Versions(f"{policy}/{narrowing}" if narrowing else policy, router, price_digest(present), program)


def request_row(path: Path, request_id: str) -> dict[str, Any] | None:
    """Return the row of the request log by column, or None when there is none; raises LogUnreadable."""
    row = LogReader(path).request(request_id) if path.exists() else None
    return None if row is None else {**row.columns, "attempts": msgspec.to_builtins(row.attempts)}


def program_version() -> str:
    """Return the version of this program."""
    return version("headgate")
