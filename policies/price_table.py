"""The price table: dated list prices with their sources, shipped as a file, overridden row by row by an operator's.

Nothing here reaches the network. The rows change with a release, or when an operator runs `headgate prices import`. A
model that is not in the table has no price, and a deployment that refers to it refuses to start.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType

import msgspec
from msgspec import Struct

from core.errors import ConfigurationError
from core.money import Price
from policies.prices import PriceEntry, exact_price
from policies.safe_yaml import load_yaml
from policies.schema import convert, key_below

SHIPPED = Path(__file__).with_name("price_table.yaml")


class RowEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """One model's list price in USD, the day on which it held, where it was published, and its other names."""

    as_of: date
    source: str
    input_usd_per_m: Decimal
    output_usd_per_m: Decimal
    cached_input_usd_per_m: Decimal | None = None
    reasoning_usd_per_m: Decimal | None = None
    usd_per_request: Decimal = Decimal(0)
    also: list[str] = msgspec.field(default_factory=list)


class TableFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A whole price file."""

    prices: dict[str, object]


@dataclass(frozen=True, slots=True)
class PriceRow:
    """One row: the price, since when it is known to hold, and the other names of the model."""

    model: str
    price: Price
    as_of: date
    source: str
    also: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Return every name by which a deployment may refer to the row."""
        return (self.model, *self.also)


@dataclass(frozen=True, slots=True)
class PriceTable:
    """Rows by model; `version` is the newest date and a digest of all rows."""

    rows: Mapping[str, PriceRow]
    version: str

    @classmethod
    def of(cls, rows: Iterable[PriceRow]) -> "PriceTable":
        """Freeze rows; of two with the same model the later one counts."""
        kept = {row.model: row for row in rows}
        ordered = dict(sorted(kept.items()))
        digest = blake2b(repr(list(ordered.values())).encode(), digest_size=6).hexdigest()
        newest = max((row.as_of for row in ordered.values()), default=date.min)
        return cls(MappingProxyType(ordered), f"{newest.isoformat()}@{digest}")

    def prices(self) -> dict[str, Price]:
        """Return the price of every name; a row's own name wins over another row's second name."""
        by_name = {name: row.price for row in self.rows.values() for name in row.also}
        return by_name | {model: row.price for model, row in self.rows.items()}

    def row(self, name: str) -> PriceRow | None:
        """Return the row that a deployment means by `name`."""
        own = self.rows.get(name)
        return own or next((row for row in self.rows.values() if name in row.also), None)


def load_price_table(override: Path | None = None) -> PriceTable:
    """Read the shipped table and lay the operator's rows over it.

    Raises:
        ConfigurationError: a file or a row cannot be used.
    """
    own = () if override is None else load_rows(override)
    return PriceTable.of((*load_rows(SHIPPED), *own))


def load_rows(path: Path) -> tuple[PriceRow, ...]:
    """Read a price file; raises ConfigurationError for the first row that cannot be used."""
    rows = []
    for row in try_rows(path):
        if isinstance(row, ConfigurationError):
            raise row
        rows.append(row)
    return tuple(rows)


def try_rows(path: Path) -> Iterator[PriceRow | ConfigurationError]:
    """Yield every row of a price file, or what is wrong with it.

    Raises:
        ConfigurationError: the file as a whole cannot be used.
    """
    file = str(path)
    raw = load_yaml(path)
    if not isinstance(raw, dict):
        raise ConfigurationError(file, "", "not a mapping of keys to values", "start with `prices:`")
    taken: dict[str, str] = {}
    for model, entry in convert(raw, TableFile, file).prices.items():
        try:
            yield _row(model, entry, file, taken)
        except ConfigurationError as problem:
            yield problem


def check_source(source: str, file: str, key: str) -> None:
    """Raise ConfigurationError unless `source` is one short line without `@`, which separates it from the date."""
    if not source.isprintable() or not 1 <= len(source) <= 80 or "@" in source:
        raise ConfigurationError(file, key, "not a short name", "write for example openai.com")


def _row(model: str, raw: object, file: str, taken: dict[str, str]) -> PriceRow:
    key = key_below("prices", model)
    entry = convert(raw, RowEntry, file, key)
    check_source(entry.source, file, f"{key}.source")
    for name in (model, *entry.also):
        if name in taken:
            raise ConfigurationError(file, key, f"{name[:80]!r} is already priced by {taken[name]!r}", "keep one")
        taken[name] = model
    written = PriceEntry(
        input_usd_per_m=entry.input_usd_per_m,
        output_usd_per_m=entry.output_usd_per_m,
        cached_input_usd_per_m=entry.cached_input_usd_per_m,
        reasoning_usd_per_m=entry.reasoning_usd_per_m,
        usd_per_request=entry.usd_per_request,
        source=f"table:{entry.source}@{entry.as_of.isoformat()}",
    )
    return PriceRow(model, exact_price(written, file, key), entry.as_of, entry.source, tuple(entry.also))
