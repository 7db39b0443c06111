"""How long the logs keep what."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Retention:
    """How long what is kept: rows by number and age, sums per minute, hour and day by age, in days."""

    max_rows: int = 1_000_000
    rows_days: float = 30.0
    minutes_days: float = 2.0
    hours_days: float = 32.0
    days_days: float = 1_000.0


@dataclass(frozen=True, slots=True)
class ReceiptRetention:
    """How long decision records are kept, and how many bytes of them, compressed, at most."""

    days: float = 30.0
    max_bytes: int = 1 << 30
