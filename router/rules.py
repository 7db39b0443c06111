"""Which of a policy's rules decides a request: pure, on declared facts alone; the first that fits wins."""

from collections.abc import Sequence

from core.endpoints import CHAT, COMPLETIONS
from core.facts import RequestFacts
from core.rules import AutoTarget, EffectivePolicy, RoutingRule, RuleCondition, RuledTarget

GENERATING = frozenset({CHAT, COMPLETIONS})


def ruled(policy: EffectivePolicy, facts: RequestFacts) -> EffectivePolicy:
    """Return the policy with the target of the rule that decides; an explicit choice comes before any rule.

    Rules are about who writes an answer: embeddings, whose vectors must come from one model, are left alone.
    """
    rules = policy.tenant_policy.routing.rules
    if not rules or not isinstance(policy.target, AutoTarget) or facts.endpoint not in GENERATING:
        return policy
    rule = deciding_rule(rules, facts)
    if rule is None:
        return policy
    return EffectivePolicy(policy.tenant_policy, policy.alias, RuledTarget(rule.name, rule.use))


def deciding_rule(rules: Sequence[RoutingRule], facts: RequestFacts) -> RoutingRule | None:
    """Return the first rule whose condition holds for `facts`, or None."""
    for rule in rules:
        if fits(rule.when, facts):
            return rule
    return None


def fits(when: RuleCondition, facts: RequestFacts) -> bool:
    """Tell whether everything that `when` states holds for `facts`."""
    return (
        (when.models is None or _is_named(facts.model, when.models))
        and (when.tools is None or when.tools == facts.has_tools)
        and (when.media is None or when.media == facts.has_media)
        and (when.stream is None or when.stream == facts.stream)
        and (when.response_format is None or facts.response_format in when.response_format)
        and (when.min_context_tokens is None or facts.input_tokens >= when.min_context_tokens)
        and (when.max_context_tokens is None or facts.input_tokens <= when.max_context_tokens)
        and (when.script is None or facts.script in when.script)
        and (when.min_non_latin_ratio is None or facts.non_latin_ratio >= when.min_non_latin_ratio)
        and (when.tags is None or not set(when.tags).isdisjoint(facts.tags))
        and (when.users is None or (facts.user is not None and _is_named(facts.user, when.users)))
        and (when.paths is None or _is_named(facts.path, when.paths))
    )


def _is_named(name: str, patterns: Sequence[str]) -> bool:
    if name in patterns:
        return True
    return any(pattern.endswith("*") and name.startswith(pattern[:-1]) for pattern in patterns)
