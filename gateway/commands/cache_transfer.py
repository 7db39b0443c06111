"""`headgate cache export | import`: a tenant's entries as a file of JSON lines, and back."""

import argparse
from pathlib import Path

from gateway.commands.options import Subparsers
from gateway.commands.printing import print_told

IMPORTED_AT_ONCE = 200
IMPORTED_BYTES = 48 * 1024
"""A request to the admin listener is at most 64 KiB."""


def add_export(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Register `export`."""
    export = actions.add_parser(
        "export",
        help="write a tenant's entries, with their texts, to a file of JSON lines",
        epilog="example: headgate cache export --tenant acme --out acme.jsonl",
    )
    export.add_argument("--tenant", required=True, help="whose entries")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="a file that does not exist yet")
    export.set_defaults(run=run_export)
    return export


def add_import(actions: "Subparsers[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Register `import`."""
    take = actions.add_parser(
        "import",
        help="keep exported entries, where the same secret keys the gateway's hashes",
        epilog="example: headgate cache import --tenant acme --in acme.jsonl",
    )
    take.add_argument("--tenant", required=True, help="whose entries")
    take.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE", help="what `export` wrote")
    take.set_defaults(run=run_import)
    return take


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
            page = client.get("/admin/cache/export", tenant=arguments.tenant, after=after)
            for entry in page["entries"]:
                file.write(msgspec.json.encode(entry) + b"\n")
            count, after = count + len(page["entries"]), page["after"]
    return print_told(arguments, {"exported": count, "file": str(arguments.out)}, f"{count} entries in {arguments.out}")


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
    return print_told(arguments, {"kept": kept, "left_out": left_out}, f"{kept} entries kept")


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
