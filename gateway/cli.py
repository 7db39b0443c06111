"""The command line: one parser, and each command's work in a module of its own that loads only when it runs."""

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from gateway.commands.help_text import lay_out

COMMANDS = (
    "init",
    "serve",
    "demo",
    "faults",
    "keys",
    "budget",
    "sla",
    "caching",
    "audit",
    "policy",
    "prices",
    "route",
    "explain",
    "report",
    "requests",
    "simulate",
    "models",
    "engines",
)
EXIT_OK = 0
EXIT_FAILED = 1
EXIT_USAGE = 2
EXAMPLES = """examples:
  headgate init
  headgate policy check
  headgate serve
  headgate keys create --tenant demo
  headgate route score --in prompts.jsonl --out scores.jsonl
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command's options."""
    parser = argparse.ArgumentParser(
        prog="headgate",
        description="A cost-aware request-routing gateway for language models.",
        epilog=EXAMPLES,
    )
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        import_module(f"gateway.commands.{name}").add_parser(subparsers)
    lay_out(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; configuration errors are one line on standard error and exit code 2."""
    from core.errors import ConfigurationError, HeadgateError

    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except ConfigurationError as error:
        print(f"headgate: {error}", file=sys.stderr)  # noqa: T201 - the command line talks to a person
        return EXIT_USAGE
    except HeadgateError as error:
        print(f"headgate: {error}", file=sys.stderr)  # noqa: T201 - the command line talks to a person
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is silent, too
        return EXIT_FAILED
    return code


def entry() -> None:
    """Exit with the command's code; the console script's target."""
    sys.exit(main())
