"""Layers of a policy: includes that stay in the folder, variables that are listed, and who wrote what."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from policies.documents import Origin, PolicyFolder, merged, origins
from policies.loading import PolicySet, load_policies
from policies.safe_yaml import parse_document
from tests.policy_samples import KNOWN


def load(folder: Path, variables: dict[str, str | None] | None = None, **files: str) -> PolicySet:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return load_policies(folder, KNOWN, variables)


def test_files_lie_in_the_documented_order(tmp_path: Path) -> None:
    policies = load(
        tmp_path,
        for_all="max_output_tokens: 1\nlimits: {concurrency: 1}\ncache: {ttl_s: 1}\nmodels: {a: small}",
        defaults="include: [for_all.yaml]\nmax_output_tokens: 2\nlimits: {concurrency: 2}\ncache: {ttl_s: 2}",
        first="max_output_tokens: 3\nlimits: {concurrency: 3}",
        second="max_output_tokens: 4\nmodels: {a: auto, b: large}",
        acme="include: [first.yaml, second.yaml]\ntenant: acme\nmax_output_tokens: 5",
    )
    acme = policies.policies["acme"]
    assert acme.max_output_tokens == 5
    assert acme.limits.concurrency == 3
    assert acme.cache.ttl_s == 2
    assert dict(acme.models) == {"a": "auto", "b": "large"}
    assert policies.tenants() == ("acme",)


def test_null_takes_away_whether_or_not_there_is_anything_to_take(tmp_path: Path) -> None:
    policies = load(tmp_path, acme="tenant: acme\ncache: null\nsla: {small: {ttft_ms: null}}\nmax_output_tokens: null")
    assert policies.policies["acme"].cache.ttl_s == 86_400
    assert policies.policies["acme"].sla["small"].ttft_ms is None


@pytest.mark.parametrize("name", ["../secret.yaml", "/etc/hostname", "link.yaml", "away/secret.yaml"])
def test_an_include_outside_the_folder_is_refused_by_its_real_path(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "tenants"
    folder.mkdir()
    (tmp_path / "secret.yaml").write_text("fallback: false")
    (folder / "link.yaml").symlink_to("../secret.yaml")
    (folder / "away").symlink_to("..")
    (folder / "acme.yaml").write_text(f"tenant: acme\ninclude: [{name}]")
    with pytest.raises(ConfigurationError, match=r"acme\.yaml: include\[0\]: .* is not inside the policy folder; move"):
        load_policies(folder, KNOWN)


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (
            {"acme": "tenant: acme\ninclude: [none.yaml]"},
            r"acme\.yaml: include\[0\]: there is no file 'none\.yaml'; name",
        ),
        ({"acme": "tenant: acme\ninclude: common.yaml"}, r"acme\.yaml: include: not a list of file names; write"),
        ({"acme": "tenant: acme\ninclude: [3]"}, r"include: not a list of file names"),
        ({"acme": f"tenant: acme\ninclude: [{'a.yaml, ' * 17}]"}, r"include: more than 16 files; join"),
        ({"acme": "tenant: acme\ninclude: [acme.yaml]"}, r"acme\.yaml: tenant: an included file has no tenant; remove"),
        (
            {"acme": "tenant: acme\ninclude: [b.yaml]", "b": "include: [c.yaml]", "c": "fallback: true"},
            r"b\.yaml: include: an included file includes nothing; remove the key",
        ),
        (
            {"acme": "tenant: acme\ninclude: [b.yaml]", "b": "limits: {concurency: 3}"},
            r"b\.yaml: limits: unknown key 'concurency'; did you mean 'concurrency'",
        ),
        (
            {"acme": "tenant: acme\ninclude: [b.yaml]", "b": "\nbudgets:\n- {window: day, limit_usd: -1}"},
            r"b\.yaml: budgets\[0\]\.limit_usd: -1 is not an amount",
        ),
    ],
)
def test_a_bad_include_is_one_line_about_the_file_that_is_wrong(
    tmp_path: Path, files: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says) as refusal:
        load(tmp_path, None, **files)
    assert len(refusal.value.message.splitlines()) == 1


def test_an_included_file_is_no_tenant_even_through_the_links_of_a_config_map(tmp_path: Path) -> None:
    hidden = tmp_path / "..2026_01_01"
    hidden.mkdir()
    (hidden / "acme.yaml").write_text("tenant: acme\ninclude: [common.yaml]")
    (hidden / "common.yaml").write_text("max_output_tokens: 7")
    (tmp_path / "..data").symlink_to(hidden.name)
    for name in ("acme.yaml", "common.yaml"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    assert load_policies(tmp_path, KNOWN).policies["acme"].max_output_tokens == 7


def test_listed_variables_stand_in_values_and_unquoted_ones_keep_their_kind(tmp_path: Path) -> None:
    text = "tenant: acme\nmax_output_tokens: ${CAP}\nmodels: {a: '${TARGET}'}\nbudgets:\n- window: day\n"
    text += "  limit_usd: ${USD}\n"
    policies = load(tmp_path, {"CAP": "12", "TARGET": "small", "USD": "0.10"}, acme=text)
    acme = policies.policies["acme"]
    assert acme.max_output_tokens == 12
    assert acme.models["a"] == "small"
    assert acme.budgets[0].limit_nano_usd == 100_000_000


def test_an_escaped_variable_is_plain_text() -> None:
    document = parse_document("a: $${HOME}\nb: x${A}y$${A}", "f", {"A": "1"})
    assert document.content == {"a": "${HOME}", "b": "x1y${A}"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: ${HOME}", "f: line 1: the variable 'HOME' may not be used; list it under `environment`"),
        ("\na: ['${EMPTY}']", "f: line 2: the variable 'EMPTY' is not set; export it"),
        ("a: ${A-b}", "f: line 1: ${A-b} names no variable; write $${ for a plain ${"),
        ("a: ${LINES}", "f: line 1: the variable 'LINES' is not one line of text; shorten it"),
        ("a: ${LONG}", "f: line 1: the variable 'LONG' is not one line of text; shorten it"),
        ("[" + "'${BIG}', " * 300 + "]", "f: line 1: the variables add more than 1 MiB; use fewer"),
    ],
)
def test_a_variable_that_cannot_be_used_is_one_line_without_its_value(text: str, says: str) -> None:
    variables = {"EMPTY": None, "LINES": "secret\nsecret", "LONG": "s" * 5000, "BIG": "s" * 4096}
    with pytest.raises(ConfigurationError) as refusal:
        parse_document(text, "f", variables)
    assert refusal.value.message.startswith(says)
    assert "secret" not in refusal.value.message


def test_variables_are_left_alone_in_keys_and_where_none_are_given() -> None:
    assert parse_document("'${A}': 1", "f", {"A": "b"}).content == {"${A}": 1}
    assert parse_document("a: ${A}", "f").content == {"a": "${A}"}


def test_each_value_is_traced_to_the_file_and_line_that_decided_it(tmp_path: Path) -> None:
    (tmp_path / "defaults.yaml").write_text(
        "limits:\n  concurrency: 5\n  requests_per_minute: 9\nbudgets:\n- {window: day, limit_usd: 1}\nmodels:\n"
        "  gpt-4: small\n  gpt-4.1: small\nmax_output_tokens: 4\n"
    )
    (tmp_path / "acme.yaml").write_text(
        "tenant: acme\nlimits:\n  concurrency: 6\nbudgets:\n\n- {window: month, limit_usd: 2}\nmodels: {gpt-4: large}\n"
        "max_output_tokens: null\nx: &x {p: 1}\ny: {<<: *x}\n"
    )
    folder = PolicyFolder(tmp_path)
    layers = (*folder.defaults(), *folder.layers(tmp_path / "acme.yaml"))
    wrote = {path: (Path(origin.file).name, origin.line) for path, origin in origins(layers).items()}
    assert wrote["limits", "concurrency"] == ("acme.yaml", 3)
    assert wrote["limits", "requests_per_minute"] == ("defaults.yaml", 3)
    assert wrote["budgets", 0, "limit_usd"] == ("acme.yaml", 6)
    assert wrote["models", "gpt-4"] == ("acme.yaml", 7)
    assert wrote["models", "gpt-4.1"] == ("defaults.yaml", 8)
    assert wrote["max_output_tokens",] == ("acme.yaml", 8)
    assert wrote["y", "p"] == ("acme.yaml", 9)
    assert "max_output_tokens" not in merged(layers)


def test_an_inherited_list_leaves_no_trace_of_items_that_were_replaced(tmp_path: Path) -> None:
    (tmp_path / "defaults.yaml").write_text("tiers:\n- small\n- large\n")
    (tmp_path / "acme.yaml").write_text("tenant: acme\ntiers: [small]\n")
    folder = PolicyFolder(tmp_path)
    wrote = origins((*folder.defaults(), *folder.layers(tmp_path / "acme.yaml")))
    own = Origin(str(tmp_path / "acme.yaml"), 2)
    assert {path: origin for path, origin in wrote.items() if path[0] == "tiers"} == {
        ("tiers",): own,
        ("tiers", 0): own,
    }
