"""Refreshing an operator's price file from another one: ours, or LiteLLM's table of models as JSON, both from disk.

A row that cannot be said exactly in our terms (a price that depends on the prompt's length, a missing figure) is left
out and counted, never guessed.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fnmatch import fnmatchcase
from pathlib import Path

from core.errors import ConfigurationError
from core.money import Price
from policies.price_table import PriceRow, load_rows
from policies.prices import PriceEntry, exact_price
from policies.safe_yaml import MAX_BYTES

MAX_JSON_BYTES = 16 * MAX_BYTES
PER_MILLION = 1_000_000
LITELLM = {
    "input_cost_per_token": "input_usd_per_m",
    "output_cost_per_token": "output_usd_per_m",
    "cache_read_input_token_cost": "cached_input_usd_per_m",
    "output_cost_per_reasoning_token": "reasoning_usd_per_m",
}
HEAD = """# Prices of your own, which lie over the shipped price table row by row. Written by `headgate prices import`;
# edits stay, comments do not. USD per million tokens.
prices:
"""


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import does to a price file: rows that come, that change (old, new), that stay, and names left out."""

    added: tuple[PriceRow, ...]
    changed: tuple[tuple[PriceRow, PriceRow], ...]
    unchanged: int
    left_out: tuple[str, ...]
    rows: tuple[PriceRow, ...]


def read_import(path: Path, patterns: Sequence[str], as_of: date, source: str) -> tuple[list[PriceRow], list[str]]:
    """Return the rows of `path` whose model matches a pattern (all without one), and the names that were left out.

    Args:
        path: a `.yaml` file of ours, or a `.json` file as LiteLLM publishes it.
        patterns: shell patterns such as `gpt-4*`.
        as_of: the day on which the JSON's figures held; our own rows carry theirs.
        source: where the JSON's figures come from.

    Raises:
        ConfigurationError: the file cannot be used, or nothing in it matches.
    """
    if path.suffix == ".json":
        rows, left_out = _litellm_rows(path, patterns, as_of, source)
    else:
        rows, left_out = [row for row in load_rows(path) if _matches(row.model, patterns)], []
    if not rows:
        raise ConfigurationError(str(path), "", "no row that can be used matches", "check the names, or the patterns")
    return rows, left_out


def combine(present: Iterable[PriceRow], coming: Iterable[PriceRow], left_out: Sequence[str] = ()) -> Imported:
    """Lay the rows that come over those that are present."""
    before = {row.model: row for row in present}
    after = dict(before)
    added, changed, unchanged = [], [], 0
    for row in coming:
        old = before.get(row.model)
        if old is None:
            added.append(row)
        elif _figures(old.price) != _figures(row.price):
            changed.append((old, row))
        else:
            unchanged += 1
        after[row.model] = row
    return Imported(
        tuple(added), tuple(changed), unchanged, tuple(left_out), tuple(after[name] for name in sorted(after))
    )


def price_file_text(rows: Iterable[PriceRow]) -> str:
    """Write rows as a price file."""
    return HEAD + "".join(_row_text(row) for row in rows)


def _row_text(row: PriceRow) -> str:
    parts = [f"as_of: {row.as_of.isoformat()}", f"source: {json.dumps(row.source)}"]
    parts += [f'{name}: "{usd}"' for name, usd in written_usd(row.price).items()]
    if row.also:
        parts.append(f"also: [{', '.join(json.dumps(name) for name in row.also)}]")
    inner = ",\n     ".join(parts)
    return f"  {json.dumps(row.model)}:\n    {{{inner}}}\n"


def written_usd(price: Price) -> dict[str, str]:
    """Return the figures of a price as they are written in files, without those that it does not have."""
    per_m = {
        "input_usd_per_m": price.input_pico_usd,
        "cached_input_usd_per_m": price.cached_input_pico_usd,
        "output_usd_per_m": price.output_pico_usd,
        "reasoning_usd_per_m": price.reasoning_pico_usd,
    }
    written = {name: _plain(Decimal(pico) / PER_MILLION) for name, pico in per_m.items() if pico is not None}
    if price.request_nano_usd:
        written["usd_per_request"] = _plain(Decimal(price.request_nano_usd) / 10**9)
    return written


def _plain(usd: Decimal) -> str:
    return f"{usd.normalize():f}"


def _figures(price: Price) -> tuple[int | None, ...]:
    return (
        price.input_pico_usd,
        price.output_pico_usd,
        price.cached_input_pico_usd,
        price.reasoning_pico_usd,
        price.request_nano_usd,
    )


def _matches(model: str, patterns: Sequence[str]) -> bool:
    return not patterns or any(fnmatchcase(model, pattern) for pattern in patterns)


def _litellm_rows(path: Path, patterns: Sequence[str], as_of: date, source: str) -> tuple[list[PriceRow], list[str]]:
    table = _read_json(path)
    rows: list[PriceRow] = []
    left_out: list[str] = []
    for model, entry in table.items():
        if model == "sample_spec" or not _matches(model, patterns):
            continue
        row = _litellm_row(model, entry, path, as_of, source) if isinstance(entry, dict) else None
        if row is None:
            left_out.append(model)
        else:
            rows.append(row)
    return rows, left_out


def _litellm_row(model: str, entry: Mapping[str, object], path: Path, as_of: date, source: str) -> PriceRow | None:
    """Return the row, None where a figure is missing or a price has a form that ours cannot say."""
    costs = {key: value for key, value in entry.items() if "cost" in key and value}
    costs |= {key: entry[key] for key in ("input_cost_per_token", "output_cost_per_token") if key in entry}
    ignorable = {
        key for key in costs if key.endswith(("_batches", "_priority", "_flex")) or key.startswith("cache_creation")
    }
    if (
        not {"input_cost_per_token", "output_cost_per_token"} <= costs.keys()
        or costs.keys() - ignorable - LITELLM.keys()
    ):
        return None
    figures = {}
    for key, name in LITELLM.items():
        cost = costs.get(key)
        if cost is not None and not isinstance(cost, int | Decimal):
            return None
        if cost is not None:
            figures[name] = Decimal(cost) * PER_MILLION
    written = f"table:{source}@{as_of.isoformat()}"
    try:
        price = exact_price(PriceEntry(**figures, source=written), str(path), model)
    except ConfigurationError:
        return None
    return PriceRow(model, price, as_of, source)


def _read_json(path: Path) -> dict[str, object]:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_JSON_BYTES + 1)
        if len(content) > MAX_JSON_BYTES:
            raise ConfigurationError(str(path), "", "larger than 16 MiB", "keep the models that you need")
        table = json.loads(content, parse_float=Decimal)
    except OSError as problem:
        raise ConfigurationError(
            str(path), "", problem.strerror or "cannot be read", "check the path and its rights"
        ) from problem
    except (ValueError, RecursionError) as problem:
        raise ConfigurationError(str(path), "", "not JSON", "download the table again") from problem
    if not isinstance(table, dict):
        raise ConfigurationError(str(path), "", "not an object of models", "download the table again")
    return table
