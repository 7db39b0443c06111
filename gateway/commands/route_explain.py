"""`headgate route explain "prompt" --tenant T`: how a prompt would be routed, in words, without sending anything."""

import argparse
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_config, add_json

if TYPE_CHECKING:
    from core.chat import ChatRequest


def add_explain(actions: "Subparsers[Any]") -> None:
    """Register the command."""
    explain = actions.add_parser(
        "explain",
        help="say how a prompt would be routed, and why, without sending it",
        description="Decide as the gateway would with every deployment ready, no forecast and no session. Nothing is "
        "sent, charged or recorded.",
        epilog='example: headgate route explain "Prove that there are infinitely many primes." --tenant demo',
    )
    explain.add_argument("prompt", nargs="?", metavar="PROMPT", help="the user's text")
    explain.add_argument("--request", type=Path, metavar="FILE", help="a whole chat request as JSON, in its place")
    explain.add_argument("--tenant", required=True, help="whose policy decides")
    explain.add_argument("--model", default="auto", help="what the app sends as `model` (default: %(default)s)")
    explain.add_argument("--tags", default="", metavar="A,B", help="what the header x-headgate-tags would say")
    explain.add_argument("--user", help="the end user")
    explain.add_argument("--free-usd", type=_amount, metavar="USD", help="what is left of the budget (default: enough)")
    add_config(explain)
    add_json(explain)
    explain.set_defaults(run=run_explain)


def run_explain(arguments: argparse.Namespace) -> int:
    """Print the decision; 1 when the request would be refused."""
    from datetime import UTC, datetime

    from rich.console import Console

    from core.plan import Standing
    from gateway.reporting.decision_words import print_receipt
    from gateway.reporting.decisions import program_version
    from gateway.whatif.dry_run import Asked, dry_run
    from router.receipt import encode_receipt

    asked = Asked(
        arguments.tenant,
        _request(arguments),
        Standing(arguments.free_usd),
        datetime.now(UTC),
        program_version(),
    )
    receipt = dry_run(arguments.config, asked)
    if arguments.json:
        print(encode_receipt(receipt).decode())
    else:
        print_receipt(Console(), receipt)
    return 0 if receipt.outcome.refusal is None else 1


def _request(arguments: argparse.Namespace) -> "ChatRequest":
    import msgspec

    from core.chat import Demands, parse_chat_request
    from core.errors import ConfigurationError, InvalidRequest
    from router.facts import split_tags

    if (arguments.prompt is None) == (arguments.request is None):
        mend = "give exactly one of them"
        raise ConfigurationError("headgate route explain", "", "needs a prompt or --request", mend)
    body: dict[str, Any] = {
        "model": arguments.model,
        "messages": [{"role": "user", "content": arguments.prompt}],
        **({} if arguments.user is None else {"user": arguments.user}),
    }
    try:
        content = msgspec.json.encode(body) if arguments.request is None else arguments.request.read_bytes()
        return parse_chat_request(content, "dry-run", Demands(tags=tuple(split_tags(arguments.tags))))
    except OSError as problem:
        reason = problem.strerror or "cannot be read"
        raise ConfigurationError(str(arguments.request), "", reason, "name a file with a chat request") from problem
    except InvalidRequest as problem:
        where = str(arguments.request or "prompt")
        mend = "write the JSON that an app would send to /v1/chat/completions"
        raise ConfigurationError(where, problem.param or "", problem.message.rstrip("."), mend) from problem


def _amount(text: str) -> int:
    from core.money import nano_usd

    try:
        return nano_usd(Decimal(text))
    except (ValueError, InvalidOperation) as problem:
        raise argparse.ArgumentTypeError(f"{text!r} is not an amount in USD") from problem
