"""A folder of policy files becomes one immutable `PolicySet`, or start-up refuses with one line.

How the files lie over each other is told at the head of `policies.documents`. An error names the file that wrote the
value, which may be the defaults or an included file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType

from core.errors import ConfigurationError
from core.rules import EffectivePolicy, TenantPolicy
from policies.building import Known, build_policy
from policies.documents import (
    DEFAULTS,
    Layer,
    Layers,
    Origin,
    PolicyFolder,
    ReadLayers,
    error_keys,
    key_text,
    merge,
    merged,
    origins,
)
from policies.schema import TenantFile, convert

__all__ = ["DEFAULTS", "Known", "Loaded", "PolicySet", "build_layers", "load_policies", "locate", "merge"]


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All tenants' policies as of one moment; `version` changes when any of them does."""

    policies: Mapping[str, TenantPolicy]
    version: str
    resolved: dict[tuple[str, str, bool], EffectivePolicy] = field(default_factory=dict, repr=False, compare=False)
    """What `policies.resolution` has resolved so far: by tenant, name, and whether a header chose it as a tier."""

    @classmethod
    def of(cls, policies: Mapping[str, TenantPolicy]) -> "PolicySet":
        """Freeze `policies`, sorted by tenant."""
        ordered = dict(sorted(policies.items()))
        digest = blake2b(digest_size=6)
        for tenant, policy in ordered.items():
            digest.update(f"{tenant}@{policy.version}\n".encode())
        return cls(MappingProxyType(ordered), digest.hexdigest())

    def get(self, tenant: str) -> TenantPolicy | None:
        """Return the tenant's policy, or None when it has none."""
        return self.policies.get(tenant)

    def tenants(self) -> tuple[str, ...]:
        """Return all tenants, sorted."""
        return tuple(self.policies)


@dataclass(slots=True)
class Loaded:
    """What the last load of a folder read and built, so that the next one costs only what has changed."""

    read: ReadLayers = field(default_factory=dict)
    built: dict[Path, tuple[Layers, TenantPolicy]] = field(default_factory=dict)

    def policy(self, path: Path, layers: Layers) -> TenantPolicy | None:
        """Return the policy that was built from these very layers."""
        if path not in self.built:
            return None
        before, policy = self.built[path]
        is_same = len(before) == len(layers) and all(a is b for a, b in zip(before, layers, strict=True))
        return policy if is_same else None


def load_policies(
    folder: Path,
    known: Known,
    variables: Mapping[str, str | None] | None = None,
    loaded: Loaded | None = None,
) -> PolicySet:
    """Read every `*.yaml` of `folder` (symbolic links as a ConfigMap makes them are fine, dot files are not read).

    Args:
        folder: where `defaults.yaml` and one file per tenant are; a file that another includes is no tenant's.
        known: the tiers and deployments that policies may name.
        variables: what `${NAME}` in values stands for, by the names that the operator allows; None: not set.
        loaded: what an earlier load with the same arguments left there; brought up to date when this one succeeds.

    Raises:
        ConfigurationError: a file cannot be used, a tenant has two files, or there is no tenant at all.
    """
    before = loaded or Loaded()
    files = PolicyFolder(folder, variables, before.read)
    built: dict[Path, tuple[Layers, TenantPolicy]] = {}
    inherited = files.defaults()
    check_defaults(inherited, known)
    written = [(path, files.layers(path)) for path in files.tenant_files()]
    policies: dict[str, TenantPolicy] = {}
    homes: dict[str, str] = {}
    for path, layers in written:
        if files.is_included(path):
            continue
        together = (*inherited, *layers)
        policy = before.policy(path, together) or build_layers(together, known)
        built[path] = together, policy
        if policy.tenant in policies:
            problem = f"the tenant {policy.tenant!r} is already defined in {homes[policy.tenant]}"
            raise ConfigurationError(str(path), "tenant", problem, "keep one file per tenant")
        policies[policy.tenant] = policy
        homes[policy.tenant] = str(path)
    if not policies:
        raise ConfigurationError(str(folder), "", "no tenant file (*.yaml)", "write one or run `headgate init`")
    before.read, before.built = files.read, built
    return PolicySet.of(policies)


def check_defaults(inherited: Layers, known: Known) -> None:
    """Check the defaults on their own, so that what is wrong there is told once.

    Raises:
        ConfigurationError: they cannot be used.
    """
    if inherited:
        build_layers((*inherited, Layer(inherited[-1].file, {"tenant": "defaults"}, {})), known)


def build_layers(layers: Layers, known: Known) -> TenantPolicy:
    """Build the policy that these layers give together.

    Raises:
        ConfigurationError: about the file that wrote the value, or the last one where a value is missing.
    """
    file = layers[-1].file
    try:
        return build_policy(convert(merged(layers), TenantFile, file), known, file)
    except ConfigurationError as error:
        origin = locate(error, layers)
        if origin is None or origin.file == file:
            raise
        problem, _, mend = error.message.removeprefix(f"{file}: {error.key}: ").partition("; ")
        raise ConfigurationError(origin.file, error.key, problem, mend) from error


def locate(error: ConfigurationError, layers: Layers) -> Origin | None:
    """Return who wrote the value that `error` is about, None when nobody did."""
    wrote = {key_text(path): origin for path, origin in origins(layers).items()}
    return next((wrote[key] for key in error_keys(error) if key in wrote), None)
