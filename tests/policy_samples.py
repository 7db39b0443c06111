"""Policies and callers for tests, written the way a tenant writes them."""

from core.identity import Caller
from core.rules import TenantPolicy
from policies.building import Known, build_policy
from policies.safe_yaml import parse_yaml
from policies.schema import TenantFile, convert

KNOWN = Known(tiers=("small", "large"), deployments=frozenset({"small-int4", "large-full", "cloud"}))
CALLER = Caller("acme", "k1")
OTHER_KEY = Caller("acme", "k2")


def tenant_policy(yaml: str = "", tenant: str = "acme") -> TenantPolicy:
    """Build the policy that a tenant file with these further lines gives."""
    file = f"{tenant}.yaml"
    return build_policy(convert(parse_yaml(f"tenant: {tenant}\n{yaml}", file), TenantFile, file), KNOWN, file)


def budget_policy(limit_usd: str, window: str = "month", more: str = "") -> TenantPolicy:
    """Build a policy with one budget."""
    return tenant_policy(f'budgets: [{{window: {window}, limit_usd: "{limit_usd}"{more}}}]')
