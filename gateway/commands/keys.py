"""`headgate keys create | list | revoke`: the API keys of tenants."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("keys", help="create, list and revoke API keys")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = actions.add_parser(
        "create",
        help="make a key and print it, alone, on standard output",
        epilog="example: KEY=$(headgate keys create --tenant demo --expires-days 30)",
    )
    create.add_argument("--tenant", required=True, help="who pays; must have a policy")
    create.add_argument(
        "--model", action="append", default=[], metavar="NAME", help="allow only this model (repeatable)"
    )
    create.add_argument("--expires-days", type=float, metavar="N", help="let the key expire after N days")
    add_config(create)
    create.set_defaults(run=run_create)
    listing = actions.add_parser("list", help="list keys, never their secrets", epilog="example: headgate keys list")
    listing.add_argument("--tenant", help="only this tenant's")
    add_config(listing)
    add_json(listing)
    listing.set_defaults(run=run_list)
    revoke = actions.add_parser(
        "revoke", help="revoke a key at once", epilog="example: headgate keys revoke 0123456789abcdef"
    )
    revoke.add_argument("key_id", help="the id between the underscores of hg_<id>_<secret>")
    add_config(revoke)
    revoke.set_defaults(run=run_revoke)


def run_create(arguments: argparse.Namespace) -> int:
    """Print the new key; it is shown once and kept nowhere."""
    from datetime import timedelta

    from core.clock import SystemClock
    from core.errors import ConfigurationError
    from gateway.settings import load_policy_set, load_settings
    from policies.keys import create_key, load_pepper
    from policies.keys_sqlite import SqliteKeyStore

    settings = load_settings(arguments.config)
    tenants = load_policy_set(settings).tenants()
    if arguments.tenant not in tenants:
        mend = f"write its policy first, or use one of: {', '.join(tenants)}"
        raise ConfigurationError("--tenant", "", f"{arguments.tenant!r} has no policy", mend)
    clock = SystemClock()
    expires_at = None if arguments.expires_days is None else clock.now() + timedelta(days=arguments.expires_days)
    settings.state_file.parent.mkdir(parents=True, exist_ok=True)
    pepper = load_pepper(settings.pepper_file)
    text, record = create_key(arguments.tenant, pepper, clock, allowed_models=arguments.model, expires_at=expires_at)
    store = SqliteKeyStore(settings.state_file)
    store.put(record)
    store.close()
    print(text)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print the keys as a table or as JSON."""
    import msgspec
    from rich.console import Console
    from rich.table import Table

    from gateway.settings import load_settings
    from policies.keys_sqlite import SqliteKeyStore

    store = SqliteKeyStore(load_settings(arguments.config).state_file)
    records = store.records(arguments.tenant)
    store.close()
    rows = [
        {
            "key_id": record.key_id,
            "tenant": record.tenant,
            "models": sorted(record.allowed_models),
            "created_at": record.created_at,
            "expires_at": record.expires_at,
            "revoked_at": record.revoked_at,
        }
        for record in records
    ]
    console = Console()
    if arguments.json:
        console.print_json(msgspec.json.encode(rows).decode())
        return 0
    table = Table(title=f"{len(rows)} keys")
    for column in ("key id", "tenant", "models", "created", "expires", "revoked"):
        table.add_column(column)
    for record in records:
        moments = (record.created_at, record.expires_at, record.revoked_at)
        shown = ["-" if moment is None else moment.isoformat(timespec="seconds") for moment in moments]
        table.add_row(record.key_id, record.tenant, ", ".join(sorted(record.allowed_models)) or "all", *shown)
    console.print(table)
    return 0


def run_revoke(arguments: argparse.Namespace) -> int:
    """Revoke one key; exit code 1 when there is no such key."""
    import sys

    from core.clock import SystemClock
    from gateway.settings import load_settings
    from policies.keys_sqlite import SqliteKeyStore

    store = SqliteKeyStore(load_settings(arguments.config).state_file)
    revoked = store.revoke(arguments.key_id, SystemClock().now())
    store.close()
    if not revoked:
        print(f"headgate: there is no key {arguments.key_id!r}", file=sys.stderr)
        return 1
    print(f"revoked {arguments.key_id}")
    return 0
