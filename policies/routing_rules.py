"""Rules and examples of a tenant's file, checked and turned into values: names must exist, ranges must hold something.

A rule that an earlier one always wins over is found here too, by reading: see `covers`.
"""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import NoReturn, TypeVar

import msgspec

from core.chat import parse_chat_request
from core.errors import InvalidRequest
from core.rules import PolicyExample, RoutingRule, RuleCondition
from policies.schema import ExampleEntry, RuleConditionEntry, RuleEntry

MAX_RULES = 100
MAX_EXAMPLES = 200
MAX_NAME = 64
NO_RULE = "none"
T = TypeVar("T")
Refuse = Callable[[str, str, str], NoReturn]
UseCheck = Callable[[str, str | list[str]], None]
_encode = msgspec.json.Encoder(decimal_format="number").encode


def build_rules(entries: Sequence[RuleEntry], check_use: UseCheck, refuse: Refuse) -> tuple[RoutingRule, ...]:
    """Return the rules in their order.

    Args:
        entries: as written under `routing.rules`.
        check_use: refuses a tier or deployments that do not exist or are not granted; takes the key and the value.
        refuse: raises an error of the file for a key.
    """
    if len(entries) > MAX_RULES:
        refuse("routing.rules", f"more than {MAX_RULES} rules", "join some of them")
    rules: list[RoutingRule] = []
    for at, entry in enumerate(entries):
        key = f"routing.rules[{at}]"
        name = entry.name or f"rule-{at + 1}"
        if not name.isprintable() or len(name) > MAX_NAME or name == NO_RULE:
            refuse(f"{key}.name", f"{name[:80]!r} is not a rule's name", f"use up to {MAX_NAME} printable characters")
        if any(rule.name == name for rule in rules):
            refuse(f"{key}.name", f"{name!r} is the name of an earlier rule", "choose another one")
        check_use(f"{key}.use", entry.use)
        condition = _condition(entry.when, f"{key}.when", refuse)
        rules.append(RoutingRule(name, condition, entry.use if isinstance(entry.use, str) else tuple(entry.use)))
    return tuple(rules)


def build_examples(
    entries: Sequence[ExampleEntry], rules: Sequence[RoutingRule], tiers: Sequence[str], refuse: Refuse
) -> tuple[PolicyExample, ...]:
    """Return the examples, each with the body that an app would send; `tiers` are those that may be expected."""
    if len(entries) > MAX_EXAMPLES:
        refuse("examples", f"more than {MAX_EXAMPLES} examples", "keep the telling ones")
    return tuple(_example(entry, f"examples[{at}]", rules, tiers, refuse) for at, entry in enumerate(entries))


def _example(
    entry: ExampleEntry, key: str, rules: Sequence[RoutingRule], tiers: Sequence[str], refuse: Refuse
) -> PolicyExample:
    body = _encode({"model": "auto", **entry.request})
    try:
        parse_chat_request(body, "example")
    except InvalidRequest as problem:
        refuse(f"{key}.request", problem.message.rstrip("."), "write it as an app would send it")
    names = [rule.name for rule in rules]
    if entry.expect.rule not in (None, NO_RULE, *names):
        refuse(f"{key}.expect.rule", f"there is no rule {entry.expect.rule!r}", f"use {' or '.join((*names, NO_RULE))}")
    if entry.expect.tier not in (None, *tiers):
        refuse(f"{key}.expect.tier", f"there is no tier {entry.expect.tier!r}", f"use {' or '.join(tiers)}")
    return PolicyExample(body, tuple(entry.tags), **msgspec.structs.asdict(entry.expect))


def covers(earlier: RuleCondition, later: RuleCondition) -> bool:
    """Tell whether every request that fits `later` fits `earlier` too, as far as reading can say."""
    return all(_covers(field.name, getattr(earlier, field.name), getattr(later, field.name)) for field in fields(later))


def _covers(name: str, earlier: object, later: object) -> bool:
    if earlier is None:
        return True
    if later is None:
        return False
    if isinstance(earlier, tuple) and isinstance(later, tuple):
        if name == "tags":
            return set(earlier) >= set(later)
        return all(any(_names(wide, narrow) for wide in earlier) for narrow in later)
    if isinstance(earlier, bool):
        return earlier is later
    if isinstance(earlier, int | float) and isinstance(later, int | float):
        return earlier >= later if name.startswith("max") else earlier <= later
    return False


def _names(wide: str, narrow: str) -> bool:
    return wide == narrow or (wide.endswith("*") and narrow.startswith(wide[:-1]))


def _condition(entry: RuleConditionEntry, key: str, refuse: Refuse) -> RuleCondition:
    low, high = entry.min_context_tokens, entry.max_context_tokens
    if low is not None and high is not None and low > high:
        refuse(f"{key}.min_context_tokens", "is above max_context_tokens", "lower it or raise max_context_tokens")
    if not any(value is not None for value in msgspec.structs.asdict(entry).values()):
        refuse(key, "holds no condition", "write one; for every request name a tier under `models` instead")
    return RuleCondition(
        tools=entry.tools,
        media=entry.media,
        stream=entry.stream,
        response_format=_several(entry.response_format, f"{key}.response_format", refuse),
        min_context_tokens=low,
        max_context_tokens=high,
        script=_several(entry.script, f"{key}.script", refuse),
        min_non_latin_ratio=entry.min_non_latin_ratio,
        tags=_several(entry.tags, f"{key}.tags", refuse),
        models=_several(entry.models, f"{key}.models", refuse),
        users=_several(entry.users, f"{key}.users", refuse),
        paths=_several(entry.paths, f"{key}.paths", refuse),
    )


def _several(written: T | list[T] | None, key: str, refuse: Refuse) -> tuple[T, ...] | None:
    if written is None:
        return None
    if isinstance(written, list):
        if not written:
            refuse(key, "the list is empty, so nothing fits it", "name something or remove the key")
        return tuple(written)
    return (written,)
