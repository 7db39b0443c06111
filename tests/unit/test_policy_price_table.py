"""The shipped price table, an operator's rows over it, and importing rows from files."""

import json
from datetime import date
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from core.money import Price, Usage
from policies.price_import import combine, price_file_text, read_import
from policies.price_table import SHIPPED, load_price_table, load_rows, try_rows

ROW = '{as_of: 2026-01-02, source: contract, input_usd_per_m: "1", output_usd_per_m: "2"'
AS_OF = date(2026, 8, 1)
LITELLM = {
    "sample_spec": {"input_cost_per_token": 0.0, "mode": "one of: chat"},
    "gpt-4o": {
        "input_cost_per_token": 2.5e-06,
        "output_cost_per_token": 1e-05,
        "cache_read_input_token_cost": 1.25e-06,
        "input_cost_per_token_batches": 1.25e-06,
        "litellm_provider": "openai",
        "mode": "chat",
    },
    "embedding": {"input_cost_per_token": 2e-08, "output_cost_per_token": 0.0, "mode": "embedding"},
    "long": {
        "input_cost_per_token": 1e-06,
        "output_cost_per_token": 1e-06,
        "input_cost_per_token_above_200k_tokens": 2e-06,
    },
    "image": {"output_cost_per_image": 0.04},
    "half": {"input_cost_per_token": 1e-06},
    "fine": {"input_cost_per_token": 1e-13, "output_cost_per_token": 1e-06},
    "text": {"input_cost_per_token": "1e-6", "output_cost_per_token": 1e-06},
}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_the_shipped_table_is_dated_sourced_and_exact() -> None:
    table = load_price_table()
    assert len(table.rows) >= 15
    assert all(date(2024, 1, 1) < row.as_of < date(2027, 1, 1) and "." in row.source for row in table.rows.values())
    price = table.prices()["gpt-4o"]
    assert price.cost_nano_usd(Usage(1000, 100)) == 3_500_000
    assert price.source == f"table:openai.com@{table.rows['gpt-4o'].as_of}"
    assert table.prices()["gpt-4o-2024-08-06"] == price
    assert table.version.partition("@")[0] == max(row.as_of for row in table.rows.values()).isoformat()
    assert all(0 < row.price.input_pico_usd <= row.price.output_pico_usd for row in table.rows.values())
    assert all((row.price.cached_input_pico_usd or 0) <= row.price.input_pico_usd for row in table.rows.values())


def test_an_operators_rows_win_over_the_shipped_ones(tmp_path: Path) -> None:
    own = write(tmp_path, "mine.yaml", f"prices:\n  gpt-4o: {ROW}, also: [house]}}\n  gpt-4o-2024-08-06: {ROW}}}\n")
    table = load_price_table(own)
    assert table.prices()["gpt-4o"] == Price(1_000_000, 2_000_000, source="table:contract@2026-01-02")
    assert table.prices()["house"] == table.prices()["gpt-4o"]
    assert table.prices()["gpt-4o-2024-08-06"].input_pico_usd == 1_000_000
    assert table.row("house") is table.rows["gpt-4o"]
    assert table.prices()["gpt-4.1"] == load_price_table().prices()["gpt-4.1"]
    assert table.version != load_price_table().version


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a", "not a mapping of keys to values; start with `prices:`"),
        ("rows: {}", "unknown key 'rows'"),
        ("prices: {a: {as_of: 2026-01-02}}", r"prices\.a: the key 'source' is missing; add it"),
        (f"prices: {{a: {ROW.replace('2026-01-02', 'May')}}}}}", r"prices\.a\.as_of: 'May' does not fit"),
        (f"prices: {{a: {ROW.replace('contract', 'me@x')}}}}}", r"prices\.a\.source: not a short name; write"),
        (f"prices: {{a: {ROW}, also: [b]}}, b: {ROW}}}}}", r"prices\.b: 'b' is already priced by 'a'; keep one"),
        (f"prices: {{a: {ROW.replace('1', '-1')}}}}}", r"prices\.a"),
        ("prices: {a: null}", r"prices\.a: expected object, got null; write a mapping"),
    ],
)
def test_a_row_that_cannot_be_used_is_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says) as refusal:
        load_rows(write(tmp_path, "mine.yaml", text))
    assert len(refusal.value.message.splitlines()) == 1


def test_every_bad_row_is_found_not_only_the_first(tmp_path: Path) -> None:
    path = write(tmp_path, "mine.yaml", f"prices: {{a: {{}}, b: {ROW}}}, c: []}}")
    kinds = [type(row).__name__ for row in try_rows(path)]
    assert kinds == ["ConfigurationError", "PriceRow", "ConfigurationError"]


def test_only_rows_that_can_be_said_exactly_are_imported(tmp_path: Path) -> None:
    path = write(tmp_path, "table.json", json.dumps(LITELLM))
    rows, left_out = read_import(path, [], AS_OF, "openai.com")
    assert {row.model: row.price for row in rows} == {
        "gpt-4o": Price(2_500_000, 10_000_000, 1_250_000, source="table:openai.com@2026-08-01"),
        "embedding": Price(20_000, 0, source="table:openai.com@2026-08-01"),
    }
    assert left_out == ["long", "image", "half", "fine", "text"]
    assert [row.model for row in read_import(path, ["gpt-*"], AS_OF, "x")[0]] == ["gpt-4o"]


def test_an_import_that_finds_nothing_or_no_table_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "table.json", json.dumps(LITELLM))
    for patterns, text, says in (
        (["none"], None, "no row that can be used matches"),
        ([], "[]", "not an object of models"),
        ([], "{", "not JSON"),
        ([], "[" * 100_000, "not JSON"),
    ):
        if text is not None:
            path.write_text(text)
        with pytest.raises(ConfigurationError, match=says):
            read_import(path, patterns, AS_OF, "x")


def test_combining_tells_new_changed_and_unchanged_rows_apart(tmp_path: Path) -> None:
    present = load_rows(SHIPPED)
    rows, _ = read_import(write(tmp_path, "t.json", json.dumps(LITELLM)), [], AS_OF, "openai.com")
    dearer = load_rows(write(tmp_path, "m.yaml", f"prices: {{gpt-4.1: {ROW}}}}}"))
    imported = combine(present, (*rows, *dearer))
    assert [row.model for row in imported.added] == ["embedding"]
    assert [(old.model, new.price.input_pico_usd) for old, new in imported.changed] == [("gpt-4.1", 1_000_000)]
    assert imported.unchanged == 1
    assert {row.model for row in imported.rows} == {row.model for row in present} | {"embedding"}


def test_what_is_written_reads_as_the_same_rows(tmp_path: Path) -> None:
    rows = load_rows(SHIPPED)
    odd = load_rows(
        write(tmp_path, "odd.yaml", f"prices: {{'a: {{b}} ü': {ROW}, usd_per_request: 0.001, also: ['no', '1.0']}}}}")
    )
    again = load_rows(write(tmp_path, "out.yaml", price_file_text((*rows, *odd))))
    assert again == (*rows, *odd)
