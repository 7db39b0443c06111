"""`headgate serve`: start the gateway and its hosted tiers, in the foreground, until a signal."""

import argparse
from typing import Any

from gateway.commands.options import Subparsers, add_config


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "serve",
        help="start the gateway",
        description="Start the gateway and its hosted tiers; Ctrl-C stops all of it.",
        epilog="example: headgate serve --config headgate.yaml --port 8080",
    )
    add_config(parser)
    parser.add_argument("--port", type=int, metavar="N", help="listen on this port instead (0 takes a free one)")
    parser.add_argument("--admin-port", type=int, metavar="N", help="admin listener's port instead")
    parser.add_argument(
        "--workers", type=int, metavar="N", help="processes that share the port (default: `workers` of the file, or 1)"
    )
    parser.add_argument("--demo", action="store_true", help="run `headgate demo` once when every tier is ready")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until a signal arrives."""
    from gateway.serving import serve
    from gateway.settings.operator import load_settings, on_ports, with_workers

    settings = on_ports(load_settings(arguments.config), arguments.port, arguments.admin_port)
    return serve(with_workers(settings, arguments.workers), demo=arguments.demo)
