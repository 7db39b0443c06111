"""`headgate keys create | list | rotate | revoke`: the API keys of tenants, and those of administrators."""

import argparse
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json

if TYPE_CHECKING:
    from datetime import datetime

    from policies.keys import KeyRecord

DEFAULT_OVERLAP_HOURS = 24.0
ROLES = ("viewer", "operator", "owner")


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("keys", help="create, list, rotate and revoke API keys")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    _add_create(actions)
    listing = actions.add_parser("list", help="list keys, never their secrets", epilog="example: headgate keys list")
    listing.add_argument("--tenant", help="only this tenant's")
    add_config(listing)
    add_json(listing)
    listing.set_defaults(run=run_list)
    rotate = actions.add_parser(
        "rotate",
        help="make a key in place of another, which goes on working for a while",
        epilog="example: KEY=$(headgate keys rotate 0123456789abcdef --overlap-hours 24)",
    )
    rotate.add_argument("key_id", metavar="KEY_ID", help="the id between the underscores of hg_<id>_<secret>")
    rotate.add_argument(
        "--overlap-hours",
        type=_hours,
        default=DEFAULT_OVERLAP_HOURS,
        metavar="N",
        help="how long the old key still works (default: %(default)g)",
    )
    add_config(rotate)
    rotate.set_defaults(run=run_rotate)
    revoke = actions.add_parser(
        "revoke", help="revoke a key at once", epilog="example: headgate keys revoke 0123456789abcdef"
    )
    revoke.add_argument("key_id", metavar="KEY_ID", help="the id between the underscores of hg_<id>_<secret>")
    add_config(revoke)
    revoke.set_defaults(run=run_revoke)


def _add_create(actions: "Subparsers[Any]") -> None:
    create = actions.add_parser(
        "create",
        help="make a key and print it, alone, on standard output",
        epilog="example: KEY=$(headgate keys create --tenant demo --expires-days 30)",
    )
    whose = create.add_mutually_exclusive_group(required=True)
    whose.add_argument("--tenant", help="who pays; must have a policy")
    whose.add_argument("--admin", choices=ROLES, metavar="ROLE", help=f"a key for the admin API: {', '.join(ROLES)}")
    for option, what in (("model", "model name"), ("tier", "tier"), ("user", "end user")):
        text = f"allow only this {what} (repeatable)"
        create.add_argument(f"--{option}", action="append", default=[], metavar="NAME", help=text)
    create.add_argument("--expires-days", type=_days, metavar="N", help="let the key expire after N days")
    add_config(create)
    create.set_defaults(run=run_create)


def run_create(arguments: argparse.Namespace) -> int:
    """Print the new key; it is shown once and kept nowhere."""
    from datetime import timedelta

    from core.clock import SystemClock
    from core.errors import ConfigurationError
    from gateway.admin.key_views import key_view
    from gateway.admin.local import open_keys
    from gateway.settings.operator import load_policy_set, load_settings
    from policies.keys import Role, create_admin_key, create_key

    settings = load_settings(arguments.config)
    scopes = {"allowed_models": arguments.model, "allowed_tiers": arguments.tier, "allowed_users": arguments.user}
    if arguments.tenant is not None:
        tenants = load_policy_set(settings).tenants()
        if arguments.tenant not in tenants:
            mend = f"write its policy first, or use one of: {', '.join(tenants)}"
            raise ConfigurationError("--tenant", "", f"{arguments.tenant!r} has no policy", mend)
    elif any(scopes.values()):
        raise ConfigurationError("--admin", "", "an administrator's key has a role and no scopes", "leave them out")
    for tier in arguments.tier:
        if tier not in settings.tiers:
            raise ConfigurationError("--tier", "", f"unknown tier {tier!r}", f"use one of: {', '.join(settings.tiers)}")
    clock = SystemClock()
    expires_at = None if arguments.expires_days is None else clock.now() + timedelta(days=arguments.expires_days)
    with open_keys(settings, clock) as keys:
        if arguments.tenant is None:
            text, record = create_admin_key(Role(arguments.admin), keys.pepper, clock, expires_at=expires_at)
        else:
            text, record = create_key(arguments.tenant, keys.pepper, clock, expires_at=expires_at, **scopes)
        with keys.audit.change("key.create", record.key_id) as change:
            keys.store.put(record)
            change.after = key_view(record)
    print(text)
    return 0


def run_list(arguments: argparse.Namespace) -> int:
    """Print the keys as a table or as JSON."""
    from rich.console import Console
    from rich.table import Table

    from core.clock import SystemClock
    from gateway.admin.key_views import key_view
    from gateway.admin.local import open_keys
    from gateway.settings.operator import load_settings

    clock = SystemClock()
    with open_keys(load_settings(arguments.config), clock) as keys:
        records = keys.store.records(arguments.tenant)
    console = Console()
    if arguments.json:
        print_json([key_view(record) for record in records])
        return 0
    table = Table(title=f"{len(records)} keys")
    for column in ("key id", "for", "scopes", "created", "state"):
        table.add_column(column, no_wrap=column == "key id")
    for record in records:
        whose = record.tenant or f"admin: {record.role}"
        state = _state(record, clock.now())
        table.add_row(record.key_id, whose, _scopes(record), f"{record.created_at:%Y-%m-%d %H:%M}", state)
    console.print(table)
    return 0


def run_rotate(arguments: argparse.Namespace) -> int:
    """Print the new key, alone; the old one expires after the overlap."""
    from datetime import timedelta

    from core.clock import SystemClock
    from gateway.admin.key_views import key_view
    from gateway.admin.local import open_keys
    from gateway.settings.operator import load_settings
    from policies.keys import rotate_key

    clock = SystemClock()
    overlap = timedelta(hours=arguments.overlap_hours)
    with open_keys(load_settings(arguments.config), clock) as keys:
        old = keys.store.get(arguments.key_id)
        before = None if old is None else key_view(old)
        with keys.audit.change("key.rotate", arguments.key_id, before) as change:
            text, record = rotate_key(keys.store, arguments.key_id, keys.pepper, clock, overlap)
            change.after = [key_view(record), key_view(keys.store.get(arguments.key_id) or record)]
    print(text)
    return 0


def run_revoke(arguments: argparse.Namespace) -> int:
    """Revoke one key; exit code 1 when there is no such key."""
    import sys

    from core.clock import SystemClock
    from gateway.admin.key_views import key_view
    from gateway.admin.local import open_keys
    from gateway.settings.operator import load_settings
    from policies.keys import revoke_key

    clock = SystemClock()
    with open_keys(load_settings(arguments.config), clock) as keys:
        old = keys.store.get(arguments.key_id)
        if old is None or old.revoked_at is not None:
            print(f"headgate: there is no key {arguments.key_id!r} to revoke", file=sys.stderr)
            return 1
        with keys.audit.change("key.revoke", arguments.key_id, key_view(old)) as change:
            revoke_key(keys.store, arguments.key_id, clock.now())
            new = keys.store.get(arguments.key_id)
            change.after = None if new is None else key_view(new)
    print(f"revoked {arguments.key_id}")
    return 0


def _scopes(record: "KeyRecord") -> str:
    parts = [
        f"{name}: {', '.join(sorted(names))}"
        for name, names in (
            ("models", record.allowed_models),
            ("tiers", record.allowed_tiers),
            ("users", record.allowed_users),
        )
        if names
    ]
    return "; ".join(parts) or "-"


def _state(record: "KeyRecord", now: "datetime") -> str:
    if record.revoked_at is not None:
        return f"revoked {record.revoked_at:%Y-%m-%d %H:%M}"
    if record.expires_at is None:
        return "valid"
    verb = "until" if record.is_valid_at(now) else "expired"
    successor = f", replaced by {record.replaced_by}" if record.replaced_by else ""
    return f"{verb} {record.expires_at:%Y-%m-%d %H:%M}{successor}"


def _days(text: str) -> float:
    return _positive(text, 36_500.0)


def _hours(text: str) -> float:
    return _positive(text, 24.0 * 366, least=0.0)


def _positive(text: str, most: float, least: float = 1e-6) -> float:
    """Read a number within bounds; `nan` and what is no number are refused by the comparison and by argparse."""
    value = float(text)
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not between {least:g} and {most:g}")
    return value
