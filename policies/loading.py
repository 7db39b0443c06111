"""A folder of policy files becomes one immutable `PolicySet`, or start-up refuses with one line.

Inheritance, in this order: what the program assumes, then `defaults.yaml`, then the tenant's file. Mappings merge key
by key; lists and single values replace what was inherited; `null` takes an inherited value away, so that the program's
default applies again. One exception: `routing` holds alternatives and is replaced as a whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import MappingProxyType

from core.errors import ConfigurationError
from core.rules import TenantPolicy
from policies.building import Known, build_policy
from policies.safe_yaml import load_yaml
from policies.schema import TenantFile, convert

__all__ = ["Known", "PolicySet", "load_policies"]

DEFAULTS = "defaults.yaml"
_REPLACED_WHOLE = frozenset({"routing"})


@dataclass(frozen=True, slots=True)
class PolicySet:
    """All tenants' policies as of one moment; `version` changes when any of them does."""

    policies: Mapping[str, TenantPolicy]
    version: str

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


def load_policies(folder: Path, known: Known) -> PolicySet:
    """Read every `*.yaml` of `folder` (symbolic links as a ConfigMap makes them are fine, dot files are not read).

    Raises:
        ConfigurationError: a file cannot be used, a tenant has two files, or there is no tenant at all.
    """
    inherited = _load_defaults(folder / DEFAULTS, known)
    policies: dict[str, TenantPolicy] = {}
    files: dict[str, str] = {}
    for path in _tenant_files(folder):
        policy = load_tenant(path, inherited, known)
        if policy.tenant in policies:
            problem = f"the tenant {policy.tenant!r} is already defined in {files[policy.tenant]}"
            raise ConfigurationError(str(path), "tenant", problem, "keep one file per tenant")
        policies[policy.tenant] = policy
        files[policy.tenant] = str(path)
    if not policies:
        raise ConfigurationError(str(folder), "", "no tenant file (*.yaml)", "write one or run `headgate init`")
    return PolicySet.of(policies)


def load_tenant(path: Path, inherited: Mapping[str, object], known: Known) -> TenantPolicy:
    """Read one tenant's file on top of what it inherits."""
    written = load_yaml(path)
    if not isinstance(written, dict):
        raise ConfigurationError(str(path), "", "not a mapping of keys to values", "start with `tenant: NAME`")
    return build_policy(convert(merge(inherited, written), TenantFile, str(path)), known, str(path))


def merge(inherited: Mapping[str, object], written: Mapping[str, object]) -> dict[str, object]:
    """Lay `written` over `inherited` as the head of this module says; neither is changed."""
    merged = dict(inherited)
    for key, value in written.items():
        below = merged.get(key)
        if value is None and key in merged:
            del merged[key]
        elif isinstance(below, Mapping) and isinstance(value, Mapping) and key not in _REPLACED_WHOLE:
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _tenant_files(folder: Path) -> list[Path]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if entry.suffix == ".yaml")
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        mend = "create it, or correct `policies` in the operator's file"
        raise ConfigurationError(str(folder), "", f"the folder cannot be read ({reason})", mend) from problem
    return [entry for entry in entries if not entry.name.startswith(".") and entry.name != DEFAULTS]


def _load_defaults(path: Path, known: Known) -> Mapping[str, object]:
    """Read the defaults and check them on their own, so that their errors carry their own file name."""
    if not path.exists():
        return {}
    written = load_yaml(path)
    if written is None:
        return {}
    if not isinstance(written, dict):
        raise ConfigurationError(str(path), "", "not a mapping of keys to values", "write keys such as `limits:`")
    if "tenant" in written:
        raise ConfigurationError(str(path), "tenant", "defaults belong to no tenant", "remove the key")
    build_policy(convert(written | {"tenant": "defaults"}, TenantFile, str(path)), known, str(path))
    return written
