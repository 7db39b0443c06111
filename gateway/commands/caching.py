"""`headgate cache stats | report | invalidate | flush | forget-tenant | export | import` of a running gateway."""

import argparse
from pathlib import Path
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json

IMPORTED_AT_ONCE = 200
IMPORTED_BYTES = 48 * 1024
"""A request to the admin listener is at most 64 KiB."""


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "cache",
        help="look into the cache of the running gateway, and remove, export or import entries",
        description="Talks to the admin listener of the running gateway with the admin key file.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    stats = actions.add_parser("stats", help="count look-ups and entries", epilog="example: headgate cache stats")
    stats.set_defaults(run=run_stats)
    report = actions.add_parser(
        "report",
        help="print the hit rate and the bound on wrong hits of each tenant",
        epilog="example: headgate cache report --tenant acme",
    )
    report.add_argument("--tenant", help="only this tenant's")
    report.set_defaults(run=run_report)
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
    invalidate.set_defaults(run=run_invalidate)
    flush = actions.add_parser("flush", help="remove all entries", epilog="example: headgate cache flush --tenant acme")
    whose = flush.add_mutually_exclusive_group(required=True)
    whose.add_argument("--tenant", help="of this tenant")
    whose.add_argument("--all-tenants", action="store_true", help="of all tenants")
    flush.set_defaults(run=run_flush)
    forget = actions.add_parser(
        "forget-tenant",
        help="remove all that the cache has of a tenant: entries, what was learned, and its encryption key",
        epilog="example: headgate cache forget-tenant acme --yes",
    )
    forget.add_argument("tenant", metavar="TENANT", help="who left")
    forget.add_argument("--yes", action="store_true", help="do it; it cannot be undone")
    forget.set_defaults(run=run_forget)
    export = actions.add_parser(
        "export",
        help="write a tenant's entries, with their texts, to a file of JSON lines",
        epilog="example: headgate cache export --tenant acme --out acme.jsonl",
    )
    export.add_argument("--tenant", required=True, help="whose entries")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a file that does not exist yet")
    export.set_defaults(run=run_export)
    take = actions.add_parser(
        "import",
        help="keep exported entries, where the same secret keys the gateway's hashes",
        epilog="example: headgate cache import --tenant acme --in acme.jsonl",
    )
    take.add_argument("--tenant", required=True, help="whose entries")
    take.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE", help="what `export` wrote")
    take.set_defaults(run=run_import)
    for action in (invalidate, flush):
        action.add_argument("--dry-run", action="store_true", help="say what would go, and remove nothing")
    for action in (stats, report, invalidate, flush, forget, export, take):
        action.add_argument("--admin-url", metavar="URL", help="the admin listener (default: as configured)")
        add_config(action)
        add_json(action)


def run_stats(arguments: argparse.Namespace) -> int:
    """Print the counts of look-ups and of entries."""
    answer = _get(arguments, "/admin/cache/stats")
    if arguments.json:
        return _json(answer)
    tenants, place = answer.pop("tenants"), answer.pop("index")
    _table("look-ups since the start", list(answer), [[str(answer[name]) for name in answer]])
    print(f"index on {place}")
    return _table("entries", ["tenant", "entries"], [[one["tenant"], str(one["entries"])] for one in tenants])


def run_report(arguments: argparse.Namespace) -> int:
    """Print hit rate and bound of each tenant."""
    answer = _get(arguments, "/admin/cache/report", tenant=arguments.tenant)
    if arguments.json:
        return _json(answer)
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
    return _told(arguments, answer, f"{answer['entries']} entries removed{key}")


def run_export(arguments: argparse.Namespace) -> int:
    """Write entries page by page; the file is readable by this user alone."""
    import os

    import msgspec

    from core.errors import ConfigurationError
    from gateway.admin.client import open_client

    try:
        handle = os.open(arguments.out, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as problem:
        mend = "name a new file in a folder that can be written"
        raise ConfigurationError(str(arguments.out), "--out", problem.strerror or "cannot be made", mend) from problem
    count = 0
    after: str | None = ""
    with os.fdopen(handle, "wb") as file, open_client(arguments.config, arguments.admin_url) as client:
        while after is not None:
            page = client.get(_path("/admin/cache/export", tenant=arguments.tenant, after=after))
            for entry in page["entries"]:
                file.write(msgspec.json.encode(entry) + b"\n")
            count, after = count + len(page["entries"]), page["after"]
    return _told(arguments, {"exported": count, "file": str(arguments.out)}, f"{count} entries in {arguments.out}")


def run_import(arguments: argparse.Namespace) -> int:
    """Send entries in requests of bounded size; one that is larger than a request is left out and told."""
    import sys

    from gateway.admin.client import open_client

    kept = 0
    batches, left_out = _batches(arguments.source)
    with open_client(arguments.config, arguments.admin_url) as client:
        for batch in batches:
            kept += client.post("/admin/cache/import", {"tenant": arguments.tenant, "entries": batch})["kept"]
    if left_out:
        print(f"headgate: {left_out} entries are too large to be sent and were left out", file=sys.stderr)
    return _told(arguments, {"kept": kept, "left_out": left_out}, f"{kept} entries kept")


def _batches(source: Path) -> tuple[list[list[object]], int]:
    """Read the file into batches below the admin listener's limit; also return how many lines are beyond it."""
    batches: list[list[object]] = []
    size, left_out = IMPORTED_BYTES, 0
    for entry, length in _lines(source):
        if length > IMPORTED_BYTES:
            left_out += 1
            continue
        if size + length > IMPORTED_BYTES or len(batches[-1]) >= IMPORTED_AT_ONCE:
            batches.append([])
            size = 0
        batches[-1].append(entry)
        size += length
    return batches, left_out


def _lines(source: Path) -> list[tuple[object, int]]:
    """Return every line's value with its length in bytes."""
    import msgspec

    from core.errors import ConfigurationError

    try:
        lines = source.read_bytes().splitlines()
    except OSError as problem:
        reason = problem.strerror or "cannot be read"
        raise ConfigurationError(str(source), "--in", reason, "check the path and its rights") from problem
    found: list[tuple[object, int]] = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append((msgspec.json.decode(line), len(line)))
        except msgspec.DecodeError as problem:
            mend = "import a file that `headgate cache export` wrote"
            raise ConfigurationError(str(source), f"line {number}", "not JSON", mend) from problem
    return found


def _removed(arguments: argparse.Namespace, path: str, body: dict[str, object]) -> int:
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        answer = client.post(path, body | {"dry_run": arguments.dry_run})
    what = "would be removed" if arguments.dry_run else "removed"
    return _told(arguments, answer, f"{answer['count']} entries {what}")


def _get(arguments: argparse.Namespace, path: str, **query: str | None) -> dict[str, Any]:
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        return client.get(_path(path, **query))


def _path(path: str, **query: str | None) -> str:
    from urllib.parse import urlencode

    given = {name: value for name, value in query.items() if value}
    return f"{path}?{urlencode(given)}" if given else path


def _told(arguments: argparse.Namespace, answer: dict[str, Any], line: str) -> int:
    if arguments.json:
        return _json(answer)
    print(line)
    return 0


def _json(answer: dict[str, Any]) -> int:
    import msgspec
    from rich.console import Console

    Console().print_json(msgspec.json.encode(answer).decode())
    return 0


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
