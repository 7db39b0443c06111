"""Options that several commands share."""

import argparse
import os
from pathlib import Path

Subparsers = argparse._SubParsersAction  # the type that argparse returns and does not export


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add `--config`, which defaults to HEADGATE_CONFIG and then to headgate.yaml."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(os.environ.get("HEADGATE_CONFIG", "headgate.yaml")),
        metavar="FILE",
        help="the operator's file (default: $HEADGATE_CONFIG or headgate.yaml)",
    )


def add_admin_url(parser: argparse.ArgumentParser) -> None:
    """Add `--admin-url`, which defaults to the listener that the operator's file names."""
    parser.add_argument("--admin-url", metavar="URL", help="the admin listener (default: as configured)")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json` for scripts."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
