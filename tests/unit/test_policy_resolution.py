"""What a model name means, and what a caller learns about names that are not for it."""

import pytest

from core.errors import ModelNotFound, PermissionRefused
from core.identity import Caller
from core.rules import AutoTarget, DeploymentTarget, Target, TierTarget
from policies.loading import PolicySet
from policies.resolution import resolve, visible_models
from tests.policy_samples import CALLER, tenant_policy

POLICY = tenant_policy("tiers: [small]\ndeployments: [cloud]\nmodels: {gpt-4o: auto, mini: small, hosted: large-full}")
POLICIES = PolicySet.of({"acme": POLICY})


@pytest.mark.parametrize(
    ("model", "target"),
    [
        ("gpt-4o", AutoTarget()),
        ("auto", AutoTarget()),
        ("mini", TierTarget("small")),
        ("small", TierTarget("small")),
        ("hosted", DeploymentTarget("large-full")),
        ("cloud", DeploymentTarget("cloud")),
    ],
)
def test_names_resolve_in_the_documented_order(model: str, target: Target) -> None:
    effective = resolve(POLICIES, CALLER, model)
    assert (effective.target, effective.alias, effective.tenant_policy) == (target, model, POLICY)


def test_a_tenants_own_name_wins_over_a_tier_and_auto() -> None:
    policies = PolicySet.of({"acme": tenant_policy("models: {small: large, auto: small}")})
    assert resolve(policies, CALLER, "small").target == TierTarget("large")
    assert resolve(policies, CALLER, "auto").target == TierTarget("small")


@pytest.mark.parametrize("model", ["large", "large-full", "small-int4", "no-such-model", ""])
def test_what_is_not_granted_looks_like_what_does_not_exist(model: str) -> None:
    with pytest.raises(ModelNotFound) as refusal:
        resolve(POLICIES, CALLER, model)
    assert refusal.value.message == f"The model {model!r} does not exist or you do not have access to it."


def test_a_narrower_key_is_refused_only_what_its_tenant_may_use() -> None:
    narrow = Caller("acme", "k1", frozenset({"mini", "large"}))
    assert resolve(POLICIES, narrow, "mini").target == TierTarget("small")
    with pytest.raises(PermissionRefused):
        resolve(POLICIES, narrow, "gpt-4o")
    with pytest.raises(ModelNotFound):
        resolve(POLICIES, narrow, "large")


def test_a_key_of_a_tenant_without_policy_is_refused() -> None:
    with pytest.raises(PermissionRefused, match="has no policy"):
        resolve(POLICIES, Caller("gone", "k1"), "auto")


def test_visible_models_are_those_that_resolve() -> None:
    assert visible_models(POLICIES, CALLER) == ("gpt-4o", "mini", "hosted", "auto", "small", "cloud")
    narrow = Caller("acme", "k1", frozenset({"mini", "large"}))
    assert visible_models(POLICIES, narrow) == ("mini",)


def test_only_names_that_the_policy_knows_are_remembered() -> None:
    policies = PolicySet.of({"acme": POLICY})
    for number in range(100):
        with pytest.raises(ModelNotFound):
            resolve(policies, CALLER, f"guess-{number}")
    assert resolve(policies, CALLER, "mini") is resolve(policies, CALLER, "mini")
    assert resolve(policies, CALLER, "mini", "small") is not resolve(policies, CALLER, "small")
    assert len(policies.resolved) == 3
