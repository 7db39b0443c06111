"""A whole policy folder looked through at once: every error of every file, and the tenants that can be used."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from core.errors import ConfigurationError
from core.rules import TenantPolicy
from policies.building import Known
from policies.documents import Layer, Layers, Origin, PolicyFolder, error_keys, origins
from policies.findings import Finding, error_finding
from policies.loading import build_layers, locate
from policies.safe_yaml import KeyPath

_TOP = re.compile(r"[^.\[]+")


@dataclass(frozen=True, slots=True)
class CheckedTenant:
    """A policy that can be used, who wrote each of its values, and which files all tenants inherit."""

    policy: TenantPolicy
    file: str
    wrote: Mapping[KeyPath, Origin]
    inherited_files: frozenset[str]

    def is_inherited(self, path: KeyPath) -> bool:
        """Tell whether the value at `path` was written for all tenants, or by nobody."""
        origin = self.wrote.get(path)
        return origin is None or origin.file in self.inherited_files


def check_folder(
    folder: Path, known: Known, variables: Mapping[str, str | None] | None = None
) -> tuple[dict[str, CheckedTenant], set[Finding]]:
    """Read every file as loading does, and go on after an error; raises nothing."""
    files, findings = PolicyFolder(folder, variables), set[Finding]()
    try:
        inherited = files.defaults()
    except ConfigurationError as error:
        inherited = ()
        findings.add(error_finding(error))
    written: list[tuple[Path, Layers]] = []
    try:
        paths = files.tenant_files()
    except ConfigurationError as error:
        return {}, findings | {error_finding(error)}
    for path in paths:
        try:
            written.append((path, files.layers(path)))
        except ConfigurationError as error:
            findings.add(error_finding(error))
    if inherited:
        defaults = (*inherited, Layer(inherited[-1].file, {"tenant": "defaults"}, {}))
        findings |= _errors(defaults, known)
    tenants: dict[str, CheckedTenant] = {}
    shared = frozenset(layer.file for layer in inherited)
    for path, layers in written:
        if not files.is_included(path):
            findings |= _check_tenant((*inherited, *layers), known, shared, tenants)
    if not written:
        empty = ConfigurationError(str(folder), "", "no tenant file (*.yaml)", "write one or run `headgate init`")
        findings.add(error_finding(empty))
    return tenants, findings


def _check_tenant(
    layers: Layers, known: Known, inherited_files: frozenset[str], tenants: dict[str, CheckedTenant]
) -> set[Finding]:
    """Add the tenant when its policy can be used, and return what cannot."""
    file = layers[-1].file
    errors = _errors(layers, known)
    if errors:
        return errors
    policy = build_layers(layers, known)
    if policy.tenant in tenants:
        problem = f"the tenant {policy.tenant!r} is already defined in {tenants[policy.tenant].file}"
        return {error_finding(ConfigurationError(file, "tenant", problem, "keep one file per tenant"))}
    tenants[policy.tenant] = CheckedTenant(policy, file, origins(layers), inherited_files)
    return set()


def _errors(layers: Layers, known: Known) -> set[Finding]:
    """Return an error for each top-level key that has one: what failed is left out and the rest is tried again."""
    findings: set[Finding] = set()
    rest = layers
    while True:
        try:
            build_layers(rest, known)
        except ConfigurationError as error:
            findings.add(error_finding(error, locate(error, layers)))
            top = _top_key(error)
            if top in ("", "tenant") or not any(top in layer.content for layer in rest):
                return findings
            rest = tuple(_without(layer, top) for layer in rest)
        else:
            return findings


def _top_key(error: ConfigurationError) -> str:
    found = _TOP.match(error_keys(error)[0])
    return "" if found is None else found.group()


def _without(layer: Layer, key: str) -> Layer:
    return Layer(layer.file, {name: value for name, value in layer.content.items() if name != key}, layer.lines)
