"""`headgate requests export`: the request log as a CSV or Parquet file."""

import argparse
from pathlib import Path
from typing import Any

from gateway.commands.options import Subparsers, add_config, add_json
from gateway.commands.printing import print_json


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser("requests", help="export the request log")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    export = actions.add_parser(
        "export",
        help="write rows of the request log as CSV or Parquet",
        description="Reads the log beside the state, which may be in use. Rows hold no prompts and no answers; money "
        "is in whole nano-USD, times are milliseconds.",
        epilog="example: headgate requests export --format parquet --range 2026-11 --tenant acme --out nov.parquet",
    )
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="the file to write")
    export.add_argument("--format", choices=("csv", "parquet"), help="default: as the file's ending says, else csv")
    export.add_argument(
        "--range", default="all", metavar="SPAN", help="24h, 7d, 2026-11, 2026-11-03..2026-11-10 (UTC) or all (default)"
    )
    export.add_argument("--tenant", help="only this tenant's")
    add_config(export)
    add_json(export)
    export.set_defaults(run=run_export)


def run_export(arguments: argparse.Namespace) -> int:
    """Write the file and say how many rows it holds."""
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.progress import Progress

    from gateway.settings.operator import load_settings
    from gateway.telemetry.export import Export, Format
    from gateway.telemetry.time_ranges import parse_range

    span = parse_range(arguments.range, datetime.now(UTC))
    export = Export(load_settings(arguments.config).beside("requests"), span, arguments.tenant)
    out = arguments.out
    format_: Format = arguments.format or ("parquet" if out.suffix == ".parquet" else "csv")
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("rows", total=export.count())
        written = export.write(out, format_, lambda rows: progress.advance(task, rows))
    if arguments.json:
        print_json({"rows": written, "format": format_, "file": str(out), "bytes": out.stat().st_size})
    else:
        print(f"{written:,} rows, {out.stat().st_size:,} bytes: {out}")
    return 0
