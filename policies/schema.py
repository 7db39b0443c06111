"""The tenant file as it is written: one struct per mapping, and errors that name the file, the key and the mend."""

import difflib
import re
import typing
from collections.abc import Mapping
from decimal import Decimal
from types import UnionType
from typing import Annotated, Literal, TypeVar, get_args, get_origin

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from core.errors import ConfigurationError
from core.facts import ResponseFormat, Script
from core.rules import (
    BudgetScope,
    OnStoreOutage,
    Priority,
    Promotion,
    ServiceClass,
    WhenExhausted,
    WhenLate,
    WhenLoading,
    WindowKind,
    Wish,
)

T = TypeVar("T")

AtLeastOne = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
AboveZero = Annotated[float, Meta(gt=0)]
Ratio = Annotated[float, Meta(ge=0, le=1)]
HoldoutRatio = Annotated[float, Meta(ge=0, le=0.5)]


def says(text: str) -> Meta:
    """Describe a key for the JSON Schema, which editors show."""
    return Meta(description=text)


class BudgetEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """A limit in USD per window of time."""

    window: Annotated[WindowKind, says("How long the limit counts before it begins again.")]
    limit_usd: Annotated[Decimal, says("The limit in USD, with up to nine decimal places.")]
    zone: Annotated[str, says("IANA time zone in which a calendar window begins.")] = "UTC"
    when_exhausted: Annotated[
        WhenExhausted | UnsetType,
        says("`reject` (the default), `small_only`: the cheapest tier goes on, `cache_only`: hits alone."),
    ] = UNSET
    per: Annotated[BudgetScope, says("Who has the limit for itself: the tenant, each API key, each end user.")] = (
        "tenant"
    )
    tier: Annotated[str | None, says("Count the cost of this tier alone.")] = None
    rolling: Annotated[bool, says("Count the last such length of time instead of a calendar window.")] = False
    soft: Annotated[bool, says("Never refuse and never step down; only raise the alerts.")] = False
    alerts: Annotated[list[Decimal], says("Fractions of the limit at which an alert is raised, such as 0.8.")] = (
        msgspec.field(default_factory=list)
    )


class LimitsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Rate limits; a key that is left out means unlimited."""

    requests_per_minute: Annotated[AtLeastOne | None, says("Requests per minute.")] = None
    tokens_per_minute: Annotated[AtLeastOne | None, says("Input and output tokens per minute.")] = None
    concurrency: Annotated[AtLeastOne | None, says("Requests at the same time.")] = None


class SlaEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Latency limits of one tier; a key that is left out means unlimited."""

    ttft_ms: Annotated[AtLeastOne | None, says("Streams: first content within this time, in milliseconds.")] = None
    total_ms: Annotated[AtLeastOne | None, says("The whole answer within this time, in milliseconds.")] = None
    min_output_tokens_per_s: Annotated[
        AboveZero | None, says("Streams: the least average pace from the first token on; slower ones are cut.")
    ] = None
    idle_ms: Annotated[AtLeastOne | None, says("Streams: the longest gap between two pieces, in milliseconds.")] = None
    when_late: Annotated[
        WhenLate,
        says("A request that cannot make it: `move` to a deployment that can, `queue` for its own, `shed` with 503."),
    ] = "move"
    objective_ratio: Annotated[
        float,
        Meta(gt=0, lt=1),
        says("The share of requests that shall keep the limits; the rest is the error budget."),
    ] = 0.99


class RuleConditionEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Declared facts of a request; all that are written must hold, and of a list one entry is enough."""

    tools: Annotated[bool | None, says("Whether the request offers tools.")] = None
    media: Annotated[bool | None, says("Whether it holds images, audio or files.")] = None
    stream: Annotated[bool | None, says("Whether it asks for a stream.")] = None
    response_format: Annotated[
        ResponseFormat | list[ResponseFormat] | None, says("`text`, `json_object`, `json_schema`, or a list of them.")
    ] = None
    min_context_tokens: Annotated[AtLeastOne | None, says("The prompt has at least so many tokens, as estimated.")] = (
        None
    )
    max_context_tokens: Annotated[AtLeastOne | None, says("The prompt has at most so many tokens, as estimated.")] = (
        None
    )
    script: Annotated[Script | list[Script] | None, says("The script that the last user text is written in.")] = None
    min_non_latin_ratio: Annotated[Ratio | None, says("At least this share of its letters is not Latin.")] = None
    tags: Annotated[str | list[str] | None, says("Tags of the header `x-headgate-tags` or of `metadata.tags`.")] = None
    models: Annotated[str | list[str] | None, says("Names sent as `model`; a `*` at the end stands for the rest.")] = (
        None
    )
    users: Annotated[str | list[str] | None, says("End users; a `*` at the end stands for the rest.")] = None
    paths: Annotated[str | list[str] | None, says("Routes; a `*` at the end stands for the rest.")] = None


class RuleEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """A rule: requests that fit the condition go to a tier, or to deployments in this order."""

    when: Annotated[RuleConditionEntry, says("What a request must declare.")]
    use: Annotated[str | list[str], says("A tier, or a list of deployments in the order in which they are tried.")]
    name: Annotated[str | None, says("What explanations call the rule.")] = None


class ExpectEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What is expected of an example; what is left out is not looked at."""

    tier: Annotated[str | None, says("The tier that is planned first.")] = None
    deployment: Annotated[str | None, says("The deployment that is planned first.")] = None
    rule: Annotated[str | None, says("The rule that decides; `none` where no rule may.")] = None
    reason: Annotated[str | None, says("The token of `x-headgate-reason`.")] = None


class ExampleEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """A request that tests the policy: `headgate policy test`."""

    request: Annotated[dict[str, typing.Any], says("A chat request as an app would send it, to `auto` if unsaid.")]
    tags: Annotated[list[str], says("What the header `x-headgate-tags` would say.")] = msgspec.field(
        default_factory=list
    )
    expect: Annotated[ExpectEntry, says("What is expected.")] = ExpectEntry()


class SessionsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """How conversations keep their tier; defaults are those of `core.rules.SessionRules`."""

    enabled: Annotated[bool, says("Let turns of a conversation keep its tier.")] = True
    ttl_s: Annotated[AtLeastOne, says("Seconds after its last turn for which a session is remembered.")] = 1_800
    downgrade_after: Annotated[AtLeastOne, says("Easy turns in a row before a session may go down a tier.")] = 3
    follow_up_chars: Annotated[
        int, Meta(ge=0, le=10_000), says("A user turn of at most so many characters inherits the tier.")
    ] = 60


class CascadeEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """When the cheapest tier is tried first and verified; defaults are those of `core.rules.CascadeRules`."""

    enabled: Annotated[bool, says("Let the cheapest tier try plain requests, verify, escalate.")] = False
    from_p: Annotated[Ratio, says("The least P(small suffices) at which that is tried.")] = 0.3
    to_p: Annotated[Ratio, says("From this P(small suffices) on nothing is verified.")] = 0.8
    max_cost_ratio: Annotated[Ratio, says("Cost of the small step over that of the one above, at most.")] = 0.2
    min_margin: Annotated[Ratio, says("The least mean margin between the two likeliest tokens, where told.")] = 0.2


class RoutingEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """How the tier is chosen: rules, and at most one of `quality`, `max_large_share`, `target_cost_usd`."""

    quality: Annotated[Ratio | None, says("The least P(small suffices) at which the small tier is chosen.")] = None
    max_large_share: Annotated[
        Ratio | None, says("The share of requests, the hardest, that goes to tiers above the cheapest.")
    ] = None
    target_cost_usd: Annotated[Decimal | None, says("What a request may cost on average, in USD.")] = None
    sessions: Annotated[SessionsEntry, says("How conversations keep their tier.")] = SessionsEntry()
    cascade: Annotated[CascadeEntry, says("Try the cheapest tier first and verify its answer.")] = CascadeEntry()
    holdout_ratio: Annotated[
        HoldoutRatio, says("Share of eligible requests that take the baseline path, to measure savings; 0.01 will do.")
    ] = 0.0
    rules: Annotated[list[RuleEntry], says("Rules on declared facts; the first that fits decides.")] = msgspec.field(
        default_factory=list
    )
    give_way: Annotated[
        list[Wish] | None, says("What gives way first, second and last where not all of the three can be kept.")
    ] = None
    explore_ratio: Annotated[
        float, Meta(ge=0, le=0.1), says("Share of freely chosen requests given to another tier, to learn from.")
    ] = 0.0
    shadow_ratio: Annotated[Ratio, says("Share of answers compared with the other tier's in the background.")] = 0.0
    shadow_budget_usd: Annotated[
        Decimal | None, says("What those comparisons may cost a day (UTC), in USD, within the budgets.")
    ] = None
    learn_from_retries: Annotated[
        bool, says("Let a question that is soon asked again speak, weakly, against its first answer.")
    ] = True
    promotion: Annotated[
        Promotion, says("Whether a learned router takes over by itself (`automatic`) or by command (`manual`).")
    ] = "automatic"


class CacheEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What the cache may do; defaults are those of `core.rules.CacheRules`."""

    enabled: Annotated[bool, says("Look up and store.")] = True
    semantic: Annotated[bool, says("Also match by meaning; false leaves the exact levels.")] = True
    per_user: Annotated[bool, says("Keep entries apart by the request's `user`.")] = False
    max_false_hit_rate: Annotated[Ratio, says("False hits / requests that the guard is held to.")] = 0.005
    shadow_ratio: Annotated[Ratio, says("Share of hits that are verified in the background.")] = 0.0
    ttl_s: Annotated[AtLeastOne, says("Life of an entry in seconds; hits do not renew it.")] = 86_400
    expose_details: Annotated[bool, says("Headers with entry, score and saving on hits.")] = True
    exact_only_until_calibrated: Annotated[bool, says("Match exactly until the tenant's own evidence suffices.")] = (
        False
    )


class TenantFile(Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant's policy, or what all tenants inherit when it is `defaults.yaml`."""

    tenant: Annotated[str | UnsetType, says("The tenant's name; not in defaults.yaml and not in included files.")] = (
        UNSET
    )
    include: Annotated[list[str], says("Files of the policy folder that lie under this one.")] = msgspec.field(
        default_factory=list
    )
    models: Annotated[dict[str, str], says("Names that apps send, mapped to `auto`, a tier or a deployment.")] = (
        msgspec.field(default_factory=dict)
    )
    tiers: Annotated[list[str] | UnsetType, says("The tiers that the tenant may use; all when left out.")] = UNSET
    deployments: Annotated[list[str], says("Deployments that the tenant may name directly.")] = msgspec.field(
        default_factory=list
    )
    budgets: Annotated[list[BudgetEntry], says("Limits in USD per window; several may apply.")] = msgspec.field(
        default_factory=list
    )
    limits: Annotated[LimitsEntry, says("Rate limits of the tenant.")] = LimitsEntry()
    key_limits: Annotated[LimitsEntry, says("Rate limits that each key has for itself.")] = LimitsEntry()
    service_class: Annotated[
        ServiceClass, says("`interactive`, or `batch`: no first-token limit, spare capacity only, shed first.")
    ] = "interactive"
    priority: Annotated[Priority, says("Weight where requests queue: high 64, normal 8, low 1.")] = "normal"
    sla: Annotated[dict[str, SlaEntry], says("Latency limits by tier.")] = msgspec.field(default_factory=dict)
    routing: Annotated[RoutingEntry, says("How the tier is chosen.")] = RoutingEntry()
    cache: Annotated[CacheEntry, says("What the semantic cache may do.")] = CacheEntry()
    max_output_tokens: Annotated[AtLeastOne | None, says("Cap on the output, sent upstream.")] = None
    on_store_outage: Annotated[OnStoreOutage, says("What happens while the budget store is away.")] = "closed"
    when_loading: Annotated[
        WhenLoading,
        says("A tier that still loads: `small` or a `remote` stands in, `wait`, or `refuse` with 503."),
    ] = "small"
    fallback: Annotated[bool, says("Whether another tier may stand in for one that is down.")] = True
    record_content: Annotated[
        bool, says("Put messages and answers, bounded and without secrets, into the spans of traces.")
    ] = False
    examples: Annotated[list[ExampleEntry], says("Requests that test this policy; they change nothing.")] = (
        msgspec.field(default_factory=list)
    )


def convert(raw: object, into: type[T], file: str, key: str = "") -> T:
    """Turn what `load_yaml` returned into `into`; `key` is where `raw` stands in `file`.

    Raises:
        ConfigurationError: one line for the first thing that does not fit, with a suggestion.
    """
    try:
        return msgspec.convert(raw, into)
    except msgspec.ValidationError as problem:
        text, _, path = str(problem).partition(" - at `$")
        raise _explained(raw, into, file, key, text, _steps(path.rstrip("`"))) from problem


_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]")
_MENDS = {
    "int": "write a whole number",
    "float": "write a number",
    "decimal": "write a number",
    "str": "write text, in quotes where it looks like a number",
    "bool": "write true or false",
    "object": "write a mapping of keys to values",
    "array": "write a list",
}


def _explained(
    raw: object, into: object, file: str, key: str, text: str, steps: list[str | int | None]
) -> ConfigurationError:
    """Walk `raw` and its type along `steps` (None stands for an unnamed mapping value) and say what is wrong there."""
    for step in steps:
        if step is None:
            return _explained_value(raw, into, file, key, text)
        into = _type_below(into, step)
        if isinstance(step, int):
            key = f"{key}[{step}]"
            raw = raw[step] if isinstance(raw, list) else None
        else:
            key = key_below(key, step)
            raw = raw.get(step) if isinstance(raw, Mapping) else None
    problem, mend = _wording(text, into, raw)
    return ConfigurationError(file, key, problem, mend)


def _explained_value(raw: object, into: object, file: str, key: str, text: str) -> ConfigurationError:
    """Find which value of a mapping msgspec meant, since it does not name the key."""
    value_type = _type_below(into, "")
    for name, value in raw.items() if isinstance(raw, Mapping) else ():
        try:
            convert(value, typing.cast("type[object]", value_type), file, key_below(key, str(name)))
        except ConfigurationError as found:
            return found
    problem, mend = _wording(text, value_type, raw)
    return ConfigurationError(file, key, problem, mend)


def key_below(key: str, name: str) -> str:
    """Write the path of a key below another on one line, whatever characters its name has."""
    shown = name[:80] if name.isprintable() else repr(name[:80])
    return f"{key}.{shown}" if key else shown


def _steps(path: str) -> list[str | int | None]:
    return [int(index) if index else (None if any_value else name) for name, index, any_value in _STEP.findall(path)]


def _type_below(of: object, step: str | int) -> object:
    """Return the type that a struct field, a list item or a mapping value has."""
    for member in _members(of):
        if isinstance(member, type) and issubclass(member, Struct):
            return typing.get_type_hints(member, include_extras=True).get(str(step), object)
        if get_origin(member) in (list, dict):
            return get_args(member)[-1]
    return object


def _members(of: object) -> tuple[object, ...]:
    """Return the alternatives of a union, or the type alone, without annotations."""
    if get_origin(of) is Annotated:
        return _members(get_args(of)[0])
    if get_origin(of) in (typing.Union, UnionType):
        return tuple(inner for member in get_args(of) for inner in _members(member))
    return (of,)


def _wording(text: str, expected: object, raw: object) -> tuple[str, str]:
    quoted = re.findall(r"`([^`]*)`", text)
    if text.startswith("Object contains unknown field"):
        return f"unknown key {quoted[0]!r}", _nearest(quoted[0], _field_names(expected))
    if text.startswith("Object missing required field"):
        return f"the key {quoted[0]!r} is missing", "add it"
    literals = [
        str(value) for member in _members(expected) for value in get_args(member) if get_origin(member) is Literal
    ]
    if literals:
        return f"{str(raw)[:40]!r} is not accepted", f"use {' or '.join(literals)}"
    mend = next(
        (_MENDS[name] for name in re.split(r"[^a-z]+", quoted[0]) if name in _MENDS) if quoted else iter(()), ""
    )
    if not text.startswith("Expected") or ", got" not in text:
        return f"{str(raw)[:40]!r} does not fit ({text.replace('`', '').lower()})", mend or "correct the value"
    return text.replace("`", "").replace("Expected", "expected"), mend or "correct the value"


def _field_names(of: object) -> list[str]:
    structs = (member for member in _members(of) if isinstance(member, type) and issubclass(member, Struct))
    return [field.encode_name for struct in structs for field in msgspec.structs.fields(struct)]


def _nearest(word: str, known: list[str]) -> str:
    close = nearest(word, known)
    return f"did you mean {close!r}?" if close else f"remove it or use one of {', '.join(known)}"


def nearest(word: str, known: typing.Iterable[str]) -> str | None:
    """Return the known word most like `word`, or one that begins with it, or None when none is near."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=1)
    close = close or [candidate for candidate in by_lower if len(word) > 2 and candidate.startswith(word.lower())]
    return by_lower[close[0]] if close else None
