"""Logged requests with the inputs of their decisions, in the order in which they came."""

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from core.errors import ConfigurationError
from core.plan import Reason
from core.trace import SHADOW_PATH, AttemptOutcome
from gateway.telemetry.log_reader import LogUnreadable
from gateway.telemetry.receipt_blocks import read_receipts
from gateway.telemetry.request_rows import LoggedAttempt, attempts_decoder
from gateway.telemetry.savings import HITS
from gateway.telemetry.time_ranges import TimeRange
from policies.sqlite_schema import reading
from router.receipt import RecordedInputs, decode_receipt

MOST_REQUESTS = 100_000
OK = 200
NOT_STORED = frozenset({Reason.BUDGET.value, Reason.HOLDOUT.value})
TELLING = frozenset({AttemptOutcome.COMPLETE.value, AttemptOutcome.TIMED_OUT.value})
_ROWS = """
SELECT * FROM requests
WHERE received_at_ms >= ? AND received_at_ms < ? AND (? IS NULL OR tenant = ?) AND path NOT LIKE ?
ORDER BY received_at_ms DESC, id DESC LIMIT ?
"""


@dataclass(frozen=True, slots=True)
class Past:
    """One logged request.

    Attributes:
        at_s: Unix seconds when it came.
        answer: the attempt that answered, or that the deadline cut; None for hits and for what failed otherwise.
        stored: whether its answer was one that the cache may have kept.
        inputs: what its decision was made from; None where no decision was made or its record is gone.
    """

    id: str
    at_s: float
    tenant: str
    key_id: str
    alias: str
    stream: bool
    status: int
    error_code: str | None
    cache: str
    tier: str | None
    deployment: str | None
    input_tokens: int | None
    output_tokens: int | None
    cost_nano_usd: int
    ttft_ms: float | None
    total_ms: float
    late: bool
    stored: bool
    answer: LoggedAttempt | None
    inputs: RecordedInputs | None

    @property
    def is_hit(self) -> bool:
        """Whether it was answered without asking anybody."""
        return self.cache in HITS

    @property
    def is_answered(self) -> bool:
        """Whether the client got its whole answer."""
        return self.status == OK

    @property
    def was_cut(self) -> bool:
        """Whether the SLA's deadline ended it."""
        return self.late and not self.is_answered and self.answer is not None

    @property
    def p_small_suffices(self) -> float | None:
        """Return how easy it was judged, None where nobody judged."""
        judged = None if self.inputs is None else self.inputs.complexity
        return None if judged is None else judged.p_small_suffices


def read_history(
    requests: Path, receipts: Path, span: TimeRange, tenant: str | None, most: int = MOST_REQUESTS
) -> tuple[Past, ...]:
    """Return the newest requests of a span, at most `most`, oldest first; what the gateway asked by itself is left out.

    Raises:
        ConfigurationError: there is no log, or no request in the span.
        LogUnreadable: a log cannot be read.
    """
    if not requests.exists():
        raise ConfigurationError(str(requests), "", "there is no request log yet", "let the gateway serve a request")
    values = (span.start_ms, span.end_ms, tenant, tenant, f"{SHADOW_PATH}%", most)
    try:
        with reading(requests) as connection:
            connection.row_factory = sqlite3.Row
            rows = connection.execute(_ROWS, values).fetchall()
        inputs = dict(_decisions(receipts, [row["request_id"] for row in rows]))
    except sqlite3.Error as problem:
        raise LogUnreadable(f"{requests} cannot be read ({problem}).") from problem
    if not rows:
        raise ConfigurationError(str(requests), "", "no request in this span", "choose a longer --range")
    return tuple(_past(row, inputs.get(row["request_id"])) for row in reversed(rows))


def _decisions(receipts: Path, ids: Sequence[str]) -> Iterator[tuple[str, RecordedInputs]]:
    for request_id, content in read_receipts(receipts, ids):
        try:
            yield request_id, decode_receipt(content).inputs
        except (ValueError, msgspec.ValidationError):
            continue  # of another schema: as if there were none


def _past(row: Any, inputs: RecordedInputs | None) -> Past:
    attempts = attempts_decoder.decode(row["attempts"])
    telling = [attempt for attempt in attempts if attempt.outcome in TELLING]
    return Past(
        id=row["request_id"],
        at_s=row["received_at_ms"] / 1000,
        tenant=row["tenant"],
        key_id=row["key_id"],
        alias=row["model_alias"],
        stream=bool(row["stream"]),
        status=row["status"],
        error_code=row["error_code"],
        cache=row["cache"],
        tier=row["tier"],
        deployment=row["deployment"],
        input_tokens=row["input_tokens"],
        output_tokens=row["output_tokens"],
        cost_nano_usd=row["cost_nano_usd"],
        ttft_ms=row["ttft_ms"],
        total_ms=row["total_ms"],
        late=bool(row["sla_violated"]),
        stored=row["degraded_from"] is None and row["reason"] not in NOT_STORED,
        answer=telling[-1] if telling else None,
        inputs=inputs,
    )
