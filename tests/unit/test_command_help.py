"""The help of every command: within a terminal's width, with examples that can be pasted."""

import argparse
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.cli import build_parser
from gateway.commands.help_text import HelpText

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = ("README.md", *(f"docs/{page.name}" for page in sorted((REPOSITORY / "docs").glob("*.md"))))
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(?:\.venv/bin/)?headgate ([^#>|&)\n]*)", re.MULTILINE)
WIDTH = 80


class Terminal(HelpText):
    """The same layout in a terminal of a known width, which keeps two columns free."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=WIDTH - 2)


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    assert parser.formatter_class is HelpText
    parser.formatter_class = Terminal
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from parsers(one)


ALL = {one.prog: one for one in parsers(build_parser())}
WITH_EXAMPLES = {name: one for name, one in ALL.items() if (one.epilog or "").startswith("example")}


@pytest.mark.parametrize("name", ALL)
def test_help_fits_a_terminal(name: str) -> None:
    assert [line for line in ALL[name].format_help().splitlines() if len(line) > WIDTH] == []


@pytest.mark.parametrize("name", ALL)
def test_help_ends_with_an_example_or_says_where_one_is(name: str) -> None:
    assert name in WITH_EXAMPLES or "--help` says more, with an example." in ALL[name].format_help()


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_an_example_is_a_command_that_the_parser_takes(name: str) -> None:
    shown = re.sub(r"\\\n *", "", ALL[name].format_help().rpartition("\nexample")[2])
    commands = re.findall(r"headgate ([^\n>)]*)", shown)
    assert commands
    for command in commands:
        assert name == "headgate" or f"headgate {command}".startswith(name)
        assert callable(build_parser().parse_args(shlex.split(command)).run)


def test_the_readme_names_every_command_and_no_other() -> None:
    rows = re.findall(r"^\| `headgate ([a-z]+) ?([^`]*)` \|", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    named = {f"headgate {name} {action}".strip() for name, actions in rows for action in actions.split(" \\| ")}
    groups = {name.rpartition(" ")[0] for name in ALL if name.count(" ") == 2}
    assert named == {name for name in ALL if 1 <= name.count(" ") <= 2} - groups


def test_the_commands_of_the_documentation_are_taken_by_the_parser() -> None:
    texts = [(REPOSITORY / page).read_text().replace("\\\n", " ") for page in PAGES]
    shown = [command for text in texts for block in BLOCK.findall(text) for command in COMMAND.findall(block)]
    assert len(shown) > len(PAGES)
    for command in shown:
        assert callable(build_parser().parse_args(shlex.split(command)).run), command
