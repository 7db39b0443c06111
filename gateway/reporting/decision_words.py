"""A decision told in words: what was asked, what bound, who was weighed, and whether deciding again agrees."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from core.money import usd_text
from core.weighing import Candidate
from gateway.reporting.decisions import Told
from router.receipt import Receipt

REASONS = {
    "requested": "the caller named it",
    "rule": "the policy's rule {rule!r} says so",
    "session": "the conversation keeps its tier",
    "cascade": "trying the cheapest tier first and verifying its answer is worth it",
    "score": "the cheapest tier whose predicted quality meets the floor",
    "prior": "nobody could judge the request; the base rate decided",
    "share": "the floor that keeps the share of large requests",
    "cost": "the floor that keeps the mean cost",
    "latency": "the SLA moved the choice",
    "pace": "spending runs ahead of the budget's pace",
    "explore": "it was drawn to learn how another tier does",
    "guard_tools": "the request offers tools, which cheaper tiers have not passed a check for",
    "guard_json": "it asks for JSON, which cheaper tiers have not passed a check for",
    "guard_media": "it holds images or audio",
    "guard_context": "its prompt is longer than what cheaper tiers hold or were measured on",
    "guard_language": "its language is one that cheaper tiers were not measured on",
    "holdout": "it was drawn to take the baseline path, to measure what routing and cache save",
    "budget": "the budget's remainder allowed nothing dearer",
    "loading": "the wanted tier is still loading",
    "unhealthy": "the wanted deployment is down",
}
NO_VECTOR = ";no_vector"
"""Of a source: the encoder was not loaded yet, or failed; or there was no text to embed."""
HOLDS = {
    "tool_loop": "it is inside an agent loop",
    "follow_up": "it is a short follow-up",
    "easy_turns": "too few easy turns in a row to go down",
}
EXCLUSIONS = {
    "not_asked": "not what was asked for",
    "guard": "ruled out by a guard",
    "session": "not the conversation's tier",
    "loading": "still loading",
    "down": "down",
    "budget": "beyond the budget",
    "quality": "predicted quality below the floor",
    "latency": "too late for the SLA",
    "cost": "not worth its price",
}
CHANGES = {
    "policy": "the policy",
    "router": "the router's weights",
    "prices": "prices",
    "program": "the program",
}


def print_told(console: Console, told: Told, receipt: Receipt | None) -> None:
    """Print what is known of a decision."""
    if receipt is None:
        console.print(f"[bold]{escape(told.id)}[/]: no plan was made; the request log says {_row_words(told)}")
        return
    print_receipt(console, receipt)
    if told.identical:
        console.print("[green]Deciding again from the recorded inputs gives the same record, byte for byte.[/]")
    else:
        console.print(f"[bold red]Deciding again gives something else: {escape(', '.join(told.differs))}.[/]")
    if told.changed:
        changed = ", ".join(CHANGES[name] for name in told.changed)
        console.print(f"[yellow]Changed since: {changed}; the same request may be decided otherwise now.[/]")
    if told.request is not None:
        console.print(f"Then: {_row_words(told)}")


def print_receipt(console: Console, receipt: Receipt) -> None:
    """Print one record: sentences, and a table of the candidates."""
    console.print(f"[bold]{escape(receipt.id)}[/], {receipt.decided_at:%Y-%m-%d %H:%M:%S} UTC")
    for sentence in sentences(receipt):
        console.print(escape(sentence))
    weighing = receipt.outcome.weighing
    if weighing is None:
        return
    table = Table()
    for column in ("deployment", "tier", "quality", "first token", "total", "expected USD", ""):
        table.add_column(column, overflow="fold", justify="left" if column in ("deployment", "tier", "") else "right")
    for candidate in weighing.candidates:
        table.add_row(*(escape(cell) for cell in _cells(candidate, receipt)))
    console.print(table)


def sentences(receipt: Receipt) -> Iterator[str]:
    """Yield what was asked, how it was judged, and what was decided, one sentence each."""
    inputs, outcome = receipt.inputs, receipt.outcome
    facts, policy = inputs.facts, inputs.policy
    tags = f", tagged {', '.join(facts.tags)}" if facts.tags else ""
    yield f"{policy.tenant} asked for {policy.alias!r} on {facts.path}: about {facts.input_tokens} input tokens{tags}."
    if inputs.complexity is not None:
        judged = inputs.complexity
        alone = ", by its text alone, since it had no embedding" if NO_VECTOR in judged.source else ""
        yield f"The cheapest tier suffices with probability {judged.p_small_suffices:.2f}{alone} ({judged.source})."
    if inputs.session is not None:
        turns, deployment = _turns(inputs.session.turns), inputs.session.deployment
        yield f"The conversation was on {inputs.session.tier} ({deployment}) for {turns}."
    if outcome.refusal is not None:
        yield f"It was refused: {outcome.refusal}."
        return
    why = REASONS.get(outcome.reason, outcome.reason).format(rule=outcome.rule)
    hold = f", since {HOLDS[outcome.hold]}" if outcome.hold is not None else ""
    order = " > ".join(step.deployment for step in outcome.steps)
    yield f"Chosen: {outcome.tier} ({order}), because {why}{hold}; {usd_text(outcome.worst_case_nano_usd)} USD held."
    if outcome.propensities:
        odds = ", ".join(f"{tier} {probability:.2%}" for tier, probability in outcome.propensities)
        yield f"It could have been drawn to explore: {odds}."
    if outcome.degraded_from is not None:
        yield f"It stood in for {outcome.degraded_from}."
    if outcome.weighing is not None:
        price = outcome.weighing.shadow_price_per_usd
        priced = f", one more USD had to bring {price:.4g} of quality" if price else ""
        yield f"The floor of predicted quality was {outcome.weighing.floor:.3f}{priced}."


def _turns(count: int) -> str:
    return "one turn" if count == 1 else f"{count} turns"


def _cells(candidate: Candidate, receipt: Receipt) -> tuple[str, ...]:
    chosen = bool(receipt.outcome.steps) and receipt.outcome.steps[0].deployment == candidate.deployment
    verdict = "chosen" if chosen else EXCLUSIONS.get(candidate.excluded_by or "", "")
    return (
        candidate.deployment,
        candidate.tier,
        "-" if candidate.predicted_quality is None else f"{candidate.predicted_quality:.3f}",
        "-" if candidate.ttft_ms is None else f"{candidate.ttft_ms:.0f} ms",
        "-" if candidate.total_ms is None else f"{candidate.total_ms:.0f} ms",
        usd_text(candidate.expected_nano_usd),
        verdict,
    )


def _row_words(told: Told) -> str:
    row = told.request or {}
    served = f", cache {row.get('cache')}" if row.get("cache") != "miss" else ""
    who = f" by {row.get('deployment')} ({row.get('tier')})" if row.get("deployment") else ""
    return f"status {row.get('status')}{who}{served}, {usd_text(row.get('cost_nano_usd') or 0)} USD."
