"""The JSON Schema of our YAML files, for editors: generated from the structs that read them, so it cannot drift."""

from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Struct

DRAFT = "https://json-schema.org/draft/2020-12/schema"
IN_LISTS = frozenset({"BudgetEntry", "RuleEntry", "RuleConditionEntry", "ExampleEntry", "ExpectEntry"})
"""What stands in lists is never inherited key by key, so nothing there can be taken away with `null`."""
_AMOUNT = {"type": "string", "format": "decimal"}


def json_schema(of: type[Struct], title: str, *, nullable: bool) -> dict[str, Any]:
    """Return the schema of one kind of file.

    Args:
        of: the struct that reads the file.
        title: what editors show.
        nullable: whether `null` may stand for "as if it were not inherited", as in the tenants' files.
    """
    schema = msgspec.json.schema(of)
    definitions: dict[str, Any] = schema["$defs"]
    for name, definition in definitions.items():
        properties = definition.get("properties", {})
        in_a_list = name in IN_LISTS
        for key in properties:
            own = _with_amounts(properties[key])
            if nullable and isinstance(own.get("additionalProperties"), dict):
                own["additionalProperties"] = _or_null(own["additionalProperties"])
            properties[key] = own if not nullable or in_a_list else _or_null(own)
    return {"$schema": DRAFT, "title": title, "$ref": schema["$ref"], "$defs": definitions}


def key_paths(of: type[Struct]) -> Iterator[str]:
    """Yield every key that a file may have, with dots between levels and a star for free names: `sla.*.ttft_ms`."""
    schema = msgspec.json.schema(of)
    yield from _paths(schema, schema["$defs"], "")


def _paths(node: dict[str, Any], definitions: dict[str, Any], above: str) -> Iterator[str]:
    for option in node.get("anyOf", [node]):
        if "$ref" in option:
            option = definitions[option["$ref"].rpartition("/")[2]]
        for name, below in option.get("properties", {}).items():
            path = f"{above}.{name}" if above else name
            yield path
            yield from _paths(below, definitions, path)
        if isinstance(option.get("additionalProperties"), dict):
            yield from _paths(option["additionalProperties"], definitions, f"{above}.*")
        if isinstance(option.get("items"), dict):
            yield from _paths(option["items"], definitions, f"{above}[]")


def _with_amounts(node: Any) -> Any:
    """Let amounts be written as numbers, too: YAML reads `5` as one, and the loader takes it without loss."""
    if isinstance(node, list):
        return [_with_amounts(item) for item in node]
    if not isinstance(node, dict):
        return node
    if node.items() >= _AMOUNT.items():
        return {key: value for key, value in node.items() if key not in _AMOUNT} | {"type": ["number", "string"]}
    return {key: _with_amounts(value) for key, value in node.items()}


def _or_null(node: dict[str, Any]) -> dict[str, Any]:
    if {"type": "null"} in node.get("anyOf", []):
        return node
    described = {key: node[key] for key in ("description", "default") if key in node}
    return described | {"anyOf": [{k: v for k, v in node.items() if k not in described}, {"type": "null"}]}
