"""`headgate explain ID`: one decision in words, made again from its record and compared byte by byte."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json

if TYPE_CHECKING:
    from gateway.reporting.decisions import Told


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "explain",
        help="say why a request was answered by whom, and decide it again",
        description="Read the decision record of a request (its x-request-id), decide again from the recorded inputs "
        "and compare. Exit code 1 when nothing is known of it or the bytes differ.",
        epilog="example: headgate explain req_5f0c6f3a9d9e4b1c8a7d6e5f4c3b2a19",
    )
    parser.add_argument("id", metavar="ID", help="the request's id, as the header x-request-id told it")
    parser.add_argument(
        "--admin-url", metavar="URL", help="ask the gateway at this admin listener instead of reading its files"
    )
    add_config(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what is known; 1 when the record does not come out the same."""
    import sys

    from rich.console import Console

    from gateway.reporting.decision_words import print_told
    from router.receipt import decode_receipt

    told = _asked(arguments) if arguments.admin_url else _read(arguments.config, arguments.id)
    if told is None:
        print(f"headgate: no request {arguments.id!r} is known here", file=sys.stderr)
        return 1
    if arguments.json:
        print_json(told)
    else:
        receipt = None if told.decision is None else decode_receipt(bytes(told.decision))
        print_told(Console(), told, receipt)
    return 1 if told.identical is False else 0


def _asked(arguments: argparse.Namespace) -> "Told | None":
    """Ask a gateway, which decides again by itself.

    Raises:
        HeadgateError: it does not answer, or knows nothing of the request.
    """
    from urllib.parse import quote

    import msgspec

    from gateway.admin.client import open_client
    from gateway.reporting.decisions import Told

    with open_client(arguments.config, arguments.admin_url) as client:
        found = client.get(f"/admin/decisions/{quote(arguments.id, safe='')}")
    decision = None if found["decision"] is None else msgspec.Raw(msgspec.json.encode(found["decision"]))
    return msgspec.structs.replace(msgspec.convert(found | {"decision": None}, Told), decision=decision)


def _read(config: Path, request_id: str) -> "Told | None":
    from gateway.reporting.decisions import program_version, request_row, told, versions_now
    from gateway.settings.operator import load_policy_set, load_settings
    from gateway.telemetry.receipt_blocks import read_receipt
    from gateway.whatif.policy_report import catalogue
    from router.complexity import PairModel
    from router.receipt import Receipt, Versions

    settings = load_settings(config)

    def now(receipt: Receipt) -> Versions:
        policy = load_policy_set(settings).get(receipt.inputs.policy.tenant)
        router = PairModel.load(settings.pair).version
        version = None if policy is None else policy.version
        return versions_now(receipt, version, router, catalogue(settings), program_version())

    content = read_receipt(settings.beside("decisions"), request_id)
    return told(request_id, content, request_row(settings.beside("requests"), request_id), now)
