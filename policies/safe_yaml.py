"""YAML read defensively: bounded size, depth and aliases, no tags, no duplicate keys, numbers exactly as written.

Every refusal is a `ConfigurationError` of one line that names the file, the line and the mend. Three things differ
from plain YAML 1.1: a number with a decimal point arrives as `Decimal` (never as a binary float) and an integer with a
leading zero is refused instead of being read as octal, both because money is written here; and a date stays text,
because model names look like dates.
"""

import re
from decimal import Decimal, InvalidOperation
from pathlib import Path

import yaml
from yaml.constructor import ConstructorError

from core.errors import ConfigurationError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_ALIASES = 16

_PLAIN_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)\Z")
_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)


def load_yaml(path: Path) -> object:
    """Read one YAML document; mappings have text keys, decimals are `Decimal`, an empty file is None.

    Raises:
        ConfigurationError: the file cannot be read, passes a bound, repeats a key or is not plain YAML.
    """
    return parse_yaml(_read(path), str(path))


def parse_yaml(text: str, file: str) -> object:
    """Parse `text` under the same rules; `file` is the name used in errors."""
    try:
        _check_bounds(text, file)
        return _ExactLoader(text).get_single_data()
    except yaml.MarkedYAMLError as problem:
        raise _refusal(file, problem) from problem
    except (yaml.YAMLError, UnicodeError) as problem:
        raise ConfigurationError(
            file, "", f"not valid YAML ({_one_line(problem)})", "save it as UTF-8 text"
        ) from problem
    except RecursionError as problem:
        raise ConfigurationError(file, "", "nested too deeply", f"keep to {MAX_DEPTH} levels") from problem


def _read(path: Path) -> str:
    try:
        with path.open("rb") as source:
            content = source.read(MAX_BYTES + 1)
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        raise ConfigurationError(
            str(path), "", f"cannot be read ({reason})", "check the path and its rights"
        ) from problem
    if len(content) > MAX_BYTES:
        raise ConfigurationError(str(path), "", "larger than 1 MiB", "split it or remove what is not configuration")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise ConfigurationError(str(path), f"byte {problem.start}", "not UTF-8", "save it as UTF-8 text") from problem


def _check_bounds(text: str, file: str) -> None:
    """Walk the event stream, which needs no recursion, before any object is built."""
    open_anchors: list[str | None] = []
    aliases = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ConfigurationError(file, _line(event), f"the tag {tag!r} is not accepted", "remove it")
        if isinstance(event, _OPENING):
            open_anchors.append(event.anchor)
            if len(open_anchors) > MAX_DEPTH:
                raise ConfigurationError(file, _line(event), "nested too deeply", f"keep to {MAX_DEPTH} levels")
        elif isinstance(event, _CLOSING):
            open_anchors.pop()
        elif isinstance(event, yaml.AliasEvent):
            aliases += 1
            if event.anchor in open_anchors:
                raise ConfigurationError(file, _line(event), "an alias contains itself", "write the value out")
            if aliases > MAX_ALIASES:
                raise ConfigurationError(file, _line(event), f"more than {MAX_ALIASES} aliases", "write the values out")


class _ExactLoader(yaml.CSafeLoader):
    """The safe loader with text keys that occur once, exact decimals and plain integers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.tag != "tag:yaml.org,2002:str":
                raise ConstructorError(None, None, f"the key {_shown(key)} is not text; quote it", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value!r} occurs twice; keep one", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _exact_decimal(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> Decimal:
    try:
        number = Decimal(loader.construct_scalar(node))
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite():
        problem = f"{_shown(node)} is not a finite number; write it in decimal"
        raise ConstructorError(None, None, problem, node.start_mark)
    return number


def _plain_integer(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    if not _PLAIN_INTEGER.match(text) or len(text) > 40:
        problem = f"{_shown(node)} is not a plain decimal integer; drop leading zeros and colons"
        raise ConstructorError(None, None, problem, node.start_mark)
    return int(text)


def _text(loader: yaml.CSafeLoader, node: yaml.ScalarNode) -> str:
    return str(loader.construct_scalar(node))


_ExactLoader.add_constructor("tag:yaml.org,2002:timestamp", _text)
_ExactLoader.add_constructor("tag:yaml.org,2002:float", _exact_decimal)
_ExactLoader.add_constructor("tag:yaml.org,2002:int", _plain_integer)


def _refusal(file: str, problem: yaml.MarkedYAMLError) -> ConfigurationError:
    mark = problem.problem_mark or problem.context_mark
    what, _, mend = str(problem.problem or problem.context or "not valid YAML").partition("; ")
    where = "" if mark is None else f"line {mark.line + 1}"
    return ConfigurationError(file, where, _one_line(what), mend or "correct the YAML there")


def _line(event: yaml.Event) -> str:
    return f"line {event.start_mark.line + 1}" if event.start_mark else ""


def _shown(node: yaml.Node) -> str:
    return repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "that is a collection"


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:200]
