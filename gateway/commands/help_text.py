"""How help is laid out: prose wrapped for the terminal, examples as they can be pasted."""

import argparse
import textwrap


class HelpText(argparse.HelpFormatter):
    """Never breaks a word at a hyphen, as `--json` has one, and continues a long example as a shell would."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("example"):
            return "\n".join(_example(line, width) for line in text.splitlines())
        paragraphs = (" ".join(paragraph.split()) for paragraph in text.split("\n\n"))
        return "\n\n".join(textwrap.fill(one, width, break_on_hyphens=False) for one in paragraphs)

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def lay_out(parser: argparse.ArgumentParser) -> None:
    """Lay out a parser's help and that of its actions; one that only leads to actions says where examples are."""
    parser.formatter_class = HelpText
    for action in parser._actions:  # argparse has no public way to its subparsers
        if isinstance(action, argparse._SubParsersAction):
            if parser.epilog is None:
                parser.epilog = f"`{parser.prog} {action.metavar} --help` says more, with an example."
            for one in action.choices.values():
                lay_out(one)


def _example(line: str, width: int) -> str:
    """Return one line, in several that a shell reads as one where it is too long."""
    indent = line[: len(line) - len(line.lstrip())]
    rows = textwrap.wrap(
        line, width - 2, subsequent_indent=f"{indent}  ", break_on_hyphens=False, break_long_words=False
    )
    return " \\\n".join(rows)
