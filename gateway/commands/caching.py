"""`headgate cache stats | report | invalidate | flush | forget-tenant | export | import` of a running gateway."""

import argparse
from typing import Any

from gateway.commands.cache_transfer import add_export, add_import
from gateway.commands.options import Subparsers, add_admin_url, add_config, add_json
from gateway.commands.printing import print_json, print_told


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "cache",
        help="look into the cache of the running gateway, and remove, export or import entries",
        description="Talks to the admin listener of the running gateway with the admin key file.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for add in (_add_stats, _add_report, _add_invalidate, _add_flush, _add_forget, add_export, add_import):
        action = add(actions)
        add_admin_url(action)
        add_config(action)
        add_json(action)


def _add_stats(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    stats = actions.add_parser("stats", help="count look-ups and entries", epilog="example: headgate cache stats")
    stats.set_defaults(run=run_stats)
    return stats


def _add_report(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    report = actions.add_parser(
        "report",
        help="print the hit rate and the bound on wrong hits of each tenant",
        epilog="example: headgate cache report --tenant acme",
    )
    report.add_argument("--tenant", help="only this tenant's")
    report.set_defaults(run=run_report)
    return report


def _add_invalidate(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    invalidate = actions.add_parser(
        "invalidate",
        help="remove entries by id, tag, model or age",
        epilog="example: headgate cache invalidate --tenant acme --tag handbook --older-than 3600 --dry-run",
    )
    invalidate.add_argument("--tenant", required=True, help="whose entries")
    invalidate.add_argument("--entry", action="append", default=[], metavar="ID", help="this entry (repeatable)")
    invalidate.add_argument("--tag", metavar="TAG", help="made by a request with this tag")
    invalidate.add_argument("--model", metavar="NAME", help="made by this model, deployment or tier")
    invalidate.add_argument("--older-than", type=float, metavar="SECONDS", help="made longer ago than this")
    _add_dry_run(invalidate)
    invalidate.set_defaults(run=run_invalidate)
    return invalidate


def _add_flush(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    flush = actions.add_parser("flush", help="remove all entries", epilog="example: headgate cache flush --tenant acme")
    whose = flush.add_mutually_exclusive_group(required=True)
    whose.add_argument("--tenant", help="of this tenant")
    whose.add_argument("--all-tenants", action="store_true", help="of all tenants")
    _add_dry_run(flush)
    flush.set_defaults(run=run_flush)
    return flush


def _add_forget(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    forget = actions.add_parser(
        "forget-tenant",
        help="remove all that the cache has of a tenant: entries, what was learned, and its encryption key",
        epilog="example: headgate cache forget-tenant acme --yes",
    )
    forget.add_argument("tenant", metavar="TENANT", help="who left")
    forget.add_argument("--yes", action="store_true", help="do it; it cannot be undone")
    forget.set_defaults(run=run_forget)
    return forget


def _add_dry_run(action: argparse.ArgumentParser) -> None:
    action.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")


def run_stats(arguments: argparse.Namespace) -> int:
    """Print the counts of look-ups and of entries."""
    answer = _get(arguments, "/admin/cache/stats")
    if arguments.json:
        print_json(answer)
        return 0
    tenants, place = answer.pop("tenants"), answer.pop("index")
    _table("look-ups since the start", list(answer), [[str(answer[name]) for name in answer]])
    print(f"index on {place}")
    return _table("entries", ["tenant", "entries"], [[one["tenant"], str(one["entries"])] for one in tenants])


def run_report(arguments: argparse.Namespace) -> int:
    """Print hit rate and bound of each tenant."""
    answer = _get(arguments, "/admin/cache/report", tenant=arguments.tenant)
    if arguments.json:
        print_json(answer)
        return 0
    rows = [
        [
            one["tenant"],
            str(one["requests"]),
            f"{one['hit_ratio']:.1%}",
            f"{one['exact']} + {one['semantic']}",
            f"{one['false_hit_bound']:.3%} of {one['max_false_hit_rate']:.3%}",
            "exact only" if one["threshold"] is None else f"{one['threshold']:.2f}",
            one["source"],
            f"{one['wrong']} of {one['judged']}",
        ]
        for one in answer["tenants"]
    ]
    columns = ["tenant", "requests", "hit rate", "exact + semantic", "wrong hits at most", "threshold", "from", "wrong"]
    return _table("hits and the upper bound on wrong hits, over requests", columns, rows)


def run_invalidate(arguments: argparse.Namespace) -> int:
    """Remove entries, or say which would go."""
    from core.errors import ConfigurationError

    conditions = {
        "entry_ids": arguments.entry,
        "tag": arguments.tag,
        "model": arguments.model,
        "older_than_s": arguments.older_than,
    }
    given = {name: value for name, value in conditions.items() if value not in (None, [])}
    if not given:
        mend = "give --entry, --tag, --model or --older-than; to remove everything use `headgate cache flush`"
        raise ConfigurationError("invalidate", "", "no entries are named", mend)
    return _removed(arguments, "/admin/cache/invalidate", {"tenant": arguments.tenant, **given})


def run_flush(arguments: argparse.Namespace) -> int:
    """Remove all entries of a tenant or of all tenants."""
    return _removed(arguments, "/admin/cache/flush", {} if arguments.all_tenants else {"tenant": arguments.tenant})


def run_forget(arguments: argparse.Namespace) -> int:
    """Remove everything of a tenant."""
    import sys

    from core.errors import ConfigurationError
    from gateway.admin.client import open_client

    if not arguments.yes:
        mend = "add --yes, or look first with `headgate cache flush --tenant NAME --dry-run`"
        raise ConfigurationError("forget-tenant", arguments.tenant[:80], "cannot be undone", mend)
    with open_client(arguments.config, arguments.admin_url) as client:
        answer = client.post("/admin/cache/forget", {"tenant": arguments.tenant})
    if answer["has_policy"]:
        print("headgate: the tenant still has a policy; what it asks from now on is kept anew", file=sys.stderr)
    key = ", its key is destroyed" if answer["key_shredded"] else ""
    return print_told(arguments, answer, f"{answer['entries']} entries removed{key}")


def _removed(arguments: argparse.Namespace, path: str, body: dict[str, object]) -> int:
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        answer = client.post(path, body | {"dry_run": arguments.dry_run})
    what = "would be removed" if arguments.dry_run else "removed"
    return print_told(arguments, answer, f"{answer['count']} entries {what}")


def _get(arguments: argparse.Namespace, path: str, **query: str | None) -> dict[str, Any]:
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        return client.get(path, **query)


def _table(title: str, columns: list[str], rows: list[list[str]]) -> int:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title)
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    return 0
