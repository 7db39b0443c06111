"""What a key is narrowed to: end users, tiers, and which door a header goes to."""

from collections.abc import Iterable

import pytest

from core.errors import PermissionRefused
from core.identity import Caller
from core.rules import AutoTarget, DeploymentTarget, Target, TierTarget
from policies.access import Access, check_scopes, narrowed
from tests.planning import chat, policy


def caller(tiers: Iterable[str] = (), users: Iterable[str] = (), user: str | None = None) -> Caller:
    return Caller("acme", "k1", allowed_tiers=frozenset(tiers), allowed_users=frozenset(users), user=user)


def test_the_end_user_of_the_request_becomes_the_callers() -> None:
    assert check_scopes(caller(), policy(), chat(user="ada")).user == "ada"
    assert check_scopes(caller(), policy(), chat()).user is None


def test_a_key_for_some_users_speaks_for_no_other_and_not_for_nobody() -> None:
    narrow = caller(users=["ada", "bob"])
    assert check_scopes(narrow, policy(), chat(user="bob")).user == "bob"
    for request in (chat(user="eve"), chat()):
        with pytest.raises(PermissionRefused) as refusal:
            check_scopes(narrow, policy(), request)
        assert refusal.value.param == "user"


def test_a_key_for_one_user_needs_not_name_it() -> None:
    assert check_scopes(caller(users=["ada"]), policy(), chat()).user == "ada"


def test_a_token_of_one_user_cannot_name_another() -> None:
    bound = caller(user="ada")
    assert check_scopes(bound, policy(), chat()).user == "ada"
    assert check_scopes(bound, policy(), chat(user="ada")).user == "ada"
    with pytest.raises(PermissionRefused):
        check_scopes(bound, policy(), chat(user="eve"))


@pytest.mark.parametrize(
    ("target", "tiers", "is_allowed"),
    [
        (TierTarget("small"), ["small"], True),
        (TierTarget("large"), ["small"], False),
        (AutoTarget(), ["small"], True),
        (AutoTarget(), ["elsewhere"], False),
        (DeploymentTarget("l"), ["small", "large", "huge"], False),
        (DeploymentTarget("l"), [], True),
    ],
)
def test_a_key_for_some_tiers_may_name_these_and_auto(target: Target, tiers: list[str], is_allowed: bool) -> None:
    effective = policy(target, deployments=frozenset({"l"}))
    if is_allowed:
        check_scopes(caller(tiers), effective, chat())
        return
    with pytest.raises(PermissionRefused):
        check_scopes(caller(tiers), effective, chat())


def test_auto_is_planned_within_the_tiers_of_the_key() -> None:
    effective = policy(tiers=("small", "large"), deployments=frozenset({"l"}))
    rules = narrowed(effective, caller(["small"])).tenant_policy
    assert rules.tiers == ("small",)
    assert rules.deployments == frozenset()


def test_an_answer_under_narrowed_tiers_is_not_shared_with_keys_that_are_not() -> None:
    effective = policy(tiers=("small", "large"))
    assert narrowed(effective, caller(["small"])).tenant_policy.version != effective.tenant_policy.version


def test_a_key_that_may_use_every_tier_plans_as_its_tenant() -> None:
    effective = policy(tiers=("small", "large"))
    assert narrowed(effective, caller()) is effective
    assert narrowed(effective, caller(["large", "small", "other"])) is effective


class Door:
    """Lets everyone in under its own name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def is_token(self, header_value: str | None) -> bool:
        return header_value == "token"

    def authenticate(self, header_value: str | None, address: str = "") -> Caller:
        return Caller(self.name, f"{header_value}@{address}")


def test_tokens_go_to_the_identity_provider_and_all_else_to_the_keys() -> None:
    access = Access(Door("keys"), Door("tokens"))
    assert access.authenticate("token", "a") == Caller("tokens", "token@a")
    assert access.authenticate("key", "a") == Caller("keys", "key@a")
    assert Access(Door("keys")).authenticate("token") == Caller("keys", "token@")
