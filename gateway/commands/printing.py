"""What several commands print alike."""

import argparse


def print_json(value: object) -> None:
    """Print a value as JSON for scripts, indented for people who look at it."""
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(value)).decode())


def print_told(arguments: argparse.Namespace, answer: object, line: str) -> int:
    """Print what was done: the answer as JSON where that is asked for, else in a line; returns the exit code."""
    if arguments.json:
        print_json(answer)
    else:
        print(line)
    return 0
