"""Read and write the JSON lines that the router learns from and scores: one object a line, plain or gzipped."""

import gzip
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec

from core.errors import ConfigurationError

Score = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What both models achieved on one prompt, scores in [0, 1], and the tokens of their answers, where known.

    Prompts of one `group` stay in one fold.
    """

    query: str
    small_score: float
    large_score: float
    group: str = ""
    fold: int | None = None
    small_tokens: int | None = None
    large_tokens: int | None = None


class _OutcomeLine(msgspec.Struct, frozen=True):
    """A line of an outcomes file; further fields are ignored."""

    query: str
    small_score: Score
    large_score: Score
    group: str = ""
    fold: int | None = None
    small_tokens: int | None = None
    large_tokens: int | None = None


def read_outcomes(path: Path) -> list[Outcome]:
    """Read lines of `query`, `small_score`, `large_score` and, where known, `group`, `fold` and the answers' tokens.

    Raises:
        ConfigurationError: the file cannot be read, is empty, or a line is not an outcome; names the line.
    """
    decoder = msgspec.json.Decoder(_OutcomeLine)
    rows = []
    for number, raw in numbered_lines(path):
        try:
            line = decoder.decode(raw)
        except msgspec.DecodeError as problem:
            raise _bad_line(path, number, problem, "query, small_score and large_score (0 to 1)") from problem
        rows.append(Outcome(**msgspec.structs.asdict(line)))
    if not rows:
        raise ConfigurationError(str(path), "", "holds no outcomes", "give one JSON object a line")
    return rows


def read_queries(path: Path) -> Iterator[dict[str, Any]]:
    """Yield each line as it is, checked to hold a text `query`.

    Raises:
        ConfigurationError: the file cannot be read or a line is not an object with a text `query`; names the line.
    """
    decoder = msgspec.json.Decoder(dict[str, Any])
    for number, raw in numbered_lines(path):
        try:
            line = decoder.decode(raw)
        except msgspec.DecodeError as problem:
            raise _bad_line(path, number, problem, "a query") from problem
        if not isinstance(line.get("query"), str):
            raise _bad_line(path, number, "no text under 'query'", "a query")
        yield line


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (line number from 1, bytes) of every line that is not blank."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rb") as lines:
            for number, raw in enumerate(lines, 1):
                if raw.strip():
                    yield number, raw
    except (OSError, EOFError) as problem:
        raise ConfigurationError(str(path), "", f"cannot be read ({problem})", "name an existing file") from problem


def _bad_line(path: Path, number: int, problem: object, wanted: str) -> ConfigurationError:
    return ConfigurationError(str(path), f"line {number}", str(problem), f"write one JSON object with {wanted}")
