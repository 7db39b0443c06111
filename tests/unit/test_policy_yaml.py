"""The defensive YAML loader: what it refuses, how it says so, and what it reads exactly."""

from decimal import Decimal
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from policies.safe_yaml import load_yaml, parse_yaml


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: 2\na: 3", "line 3", "the key 'a' occurs twice; keep one"),
        ("a:\n  b: 1\n  b: 2", "line 3", "occurs twice"),
        ("no: 1", "line 1", "the key 'no' is not text; quote it"),
        ("a: .inf", "line 1", "not a finite number"),
        ("a: 010", "line 1", "not a plain decimal integer"),
        ("a: 1:30", "line 1", "not a plain decimal integer"),
        ("a: &x [*x]", "line 1", "an alias contains itself"),
        ("a: !!python/object:os.system x", "line 1", "is not accepted; remove it"),
        ("a: 1\n---\nb: 2", "line 2", "another document"),
        ("a: b: c", "line 1", "not allowed in this context"),
        ("[" * 40 + "]" * 40, "line 1", "nested too deeply; keep to 32 levels"),
        ("[" * 100_000, "line 1", "nested too deeply"),
        ("a: &x 1\nb: [" + "*x, " * 20 + "]", "line 2", "more than 16 aliases"),
    ],
)
def test_what_is_refused_is_named_with_its_line_and_mend(text: str, line: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        parse_yaml(text, "acme.yaml")
    assert refusal.value.message.startswith(f"acme.yaml: {line}: ")
    assert says in refusal.value.message
    assert "\n" not in refusal.value.message


def test_decimals_keep_every_digit_that_was_written() -> None:
    assert parse_yaml("a: 0.1234567890123456789", "f") == {"a": Decimal("0.1234567890123456789")}


def test_dates_stay_text() -> None:
    assert parse_yaml("model: 2024-08-06", "f") == {"model": "2024-08-06"}


def test_merge_keys_may_be_overridden() -> None:
    assert parse_yaml("x: &a {p: 1, q: 2}\ny: {<<: *a, p: 3}", "f") == {"x": {"p": 1, "q": 2}, "y": {"p": 3, "q": 2}}


def test_a_billion_laughs_are_refused() -> None:
    lines = ["a0: &a0 [ha, ha]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(ConfigurationError, match="more than 16 aliases"):
        parse_yaml("\n".join(lines), "f")


def test_a_chain_of_few_aliases_cannot_unfold_a_large_mapping() -> None:
    lines = ["x0: &x0 {" + ", ".join(f"k{n}: 1" for n in range(1000)) + "}"]
    lines += [f"x{n}: &x{n} {{a: *x{n - 1}, b: *x{n - 1}}}" for n in range(1, 9)]
    with pytest.raises(ConfigurationError, match="f: more than 100000 values; split it, or use fewer aliases"):
        parse_yaml("\n".join(lines), "f")
    assert parse_yaml("\n".join(lines[:4]), "f")


def test_a_file_over_one_mebibyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.yaml"
    path.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(ConfigurationError, match="larger than 1 MiB"):
        load_yaml(path)


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml: cannot be read \(No such file or directory\); check"):
        load_yaml(tmp_path / "none.yaml")


def test_bytes_that_are_not_utf8_are_located(tmp_path: Path) -> None:
    path = tmp_path / "latin.yaml"
    path.write_bytes(b"name: caf\xe9")
    with pytest.raises(ConfigurationError, match="byte 9: not UTF-8"):
        load_yaml(path)
