"""The exported JSON Schema accepts what the loader accepts, and the documentation names every key."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec import Struct

from gateway.settings.operator import OperatorFile
from policies.json_schema import json_schema, key_paths
from policies.price_table import RowEntry
from policies.prices import PriceEntry
from policies.safe_yaml import load_yaml, parse_yaml
from policies.schema import BudgetEntry, TenantFile

ROOT = Path(__file__).parents[2]
TENANT = json_schema(TenantFile, "tenant", nullable=True)
OPERATOR = json_schema(OperatorFile, "operator", nullable=False)


def plain(value: Any) -> Any:
    """Read decimals as a JSON editor does."""
    if isinstance(value, dict):
        return {key: plain(below) for key, below in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return float(value) if isinstance(value, Decimal) else value


def accepts(schema: dict[str, Any], yaml: str) -> bool:
    return bool(jsonschema.Draft202012Validator(schema).is_valid(plain(parse_yaml(yaml, "f"))))


def test_the_schemas_are_valid_and_accept_the_files_that_ship() -> None:
    for schema in (TENANT, OPERATOR):
        jsonschema.Draft202012Validator.check_schema(schema)
    for path in (ROOT / "policies" / "tenants").glob("*.yaml"):
        jsonschema.validate(plain(load_yaml(path)), TENANT)
    jsonschema.validate(plain(load_yaml(ROOT / "headgate.yaml")), OPERATOR)


@pytest.mark.parametrize(
    ("yaml", "valid"),
    [
        ("tenant: a\nbudgets: [{window: day, limit_usd: '1.5', alerts: [0.5, '1']}]", True),
        ("tenant: a\nbudgets: [{window: day, limit_usd: 1.5}]\nlimits: null\nmodels: {gpt-4o: null}", True),
        ("tenant: a\nbudgets: [{window: year, limit_usd: 1}]", False),
        ("tenant: a\nbudgets: [{limit_usd: 1}]", False),
        ("tenant: a\nbugdets: []", False),
        ("sla: {small: {ttft_ms: 0}}", False),
        ("include: [common.yaml]", True),
    ],
)
def test_the_tenants_schema_decides_as_the_loader_does(yaml: str, valid: bool) -> None:
    assert accepts(TENANT, yaml) is valid


def test_every_key_has_a_description_for_editors() -> None:
    for schema in (TENANT, OPERATOR):
        for definition in schema["$defs"].values():
            for key, below in definition.get("properties", {}).items():
                assert below.get("description", "").endswith("."), key


@pytest.mark.parametrize("of", [TenantFile, OperatorFile, BudgetEntry, PriceEntry, RowEntry])
def test_the_documentation_names_every_key(of: type[Struct]) -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    code = " ".join(re.findall(r"`([^`\n]+)`", text))
    words = set(re.findall(r"[a-z_]+", code))
    missing = [path for path in key_paths(of) if path.rpartition(".")[2].removesuffix("[]") not in words]
    assert not missing
