"""`headgate faults`: what clients and upstreams of a gateway get when the upstream misbehaves."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_json
from gateway.commands.printing import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from gateway.faults.cases import Case
    from gateway.faults.verdicts import Verdict

DESCRIPTION = """Sends some 160 requests through a gateway to an upstream that misbehaves in another way each
time: it closes, resets, stalls, drips, lies about usage, answers in HTML. Every case is judged by what the client sees
(the whole answer or an error, never half an answer that looks whole) and by what the upstream sees (released, asked
once).

Without --url a Headgate of its own is started, and its books are judged, too: status, bill, ledger, breaker.
With --url any OpenAI-compatible gateway is tested. Point one of its deployments at http://LISTEN/v1 (one that
speaks https to the same port, and one at a port where nothing listens, add the cases of TLS and of refused
connections), with limits of a few seconds, and without retries, cool-downs and cache. This machine's upstream must
be reachable for it."""
EXAMPLES = """examples:
  headgate faults
  headgate faults --only usage
  headgate faults --url http://127.0.0.1:4000 --key $KEY --model scripted --json > faults.json
"""


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "faults",
        help="test a gateway against an upstream that misbehaves",
        description=DESCRIPTION,
        epilog=EXAMPLES,
    )
    parser.add_argument("--url", help="a gateway to test, without /v1 (default: a Headgate started for this run)")
    parser.add_argument("--key", default="none", help="its API key")
    parser.add_argument("--model", default="scripted", help="its name of the scripted upstream (default: %(default)s)")
    parser.add_argument("--name", help="what the report calls it (default: its URL)")
    parser.add_argument("--tls-model", help="its name of https to the same port")
    parser.add_argument("--refused-model", help="its name of a port where nothing listens")
    parser.add_argument(
        "--listen",
        default="127.0.0.1:9550",
        metavar="HOST:PORT",
        help="the upstream, with --url (default: %(default)s)",
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose group or name holds the text")
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the cases and print the score; exit code 1 when anything was wrong."""
    import asyncio

    from rich.console import Console

    from gateway.faults.cases import CASES
    from gateway.faults.report import print_report, report

    cases = [case for case in CASES if arguments.only.lower() in f"{case.group}: {case.id}".lower()]
    if not cases:
        print(f"headgate: no case holds {arguments.only!r}")
        return 2
    verdicts = asyncio.run(_verdicts(arguments, cases, Console(stderr=True)))
    if arguments.json:
        name = arguments.name or arguments.url or "headgate"
        print_json(report(name, verdicts))
    else:
        print_report(verdicts, Console())
    return 0 if all(verdict.is_good for verdict in verdicts) else 1


async def _verdicts(arguments: argparse.Namespace, cases: "Sequence[Case]", console: "Console") -> "list[Verdict]":
    from rich.progress import Progress

    from gateway.faults.wall import run_other, run_own, running_upstream

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("faults", total=len(cases))

        def advance(verdict: "Verdict") -> None:
            progress.advance(task)

        if arguments.url is None:
            return await run_own(cases, advance)
        host, _, port = arguments.listen.rpartition(":")
        named = {"scripted": arguments.model, "tls": arguments.tls_model, "refused": arguments.refused_model}
        models: Any = {target: name for target, name in named.items() if name is not None}
        async with running_upstream(host, int(port)) as (upstream, url):
            console.print(f"the scripted upstream listens on {url}/v1", highlight=False)
            return await run_other(cases, upstream, arguments.url.rstrip("/"), arguments.key, models, advance)
