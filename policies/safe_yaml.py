"""YAML read defensively: bounded size, depth and aliases, no tags, no duplicate keys, numbers exactly as written.

Every refusal is a `ConfigurationError` of one line that names the file, the line and the mend. Three things differ
from plain YAML 1.1: a number with a decimal point arrives as `Decimal` (never as a binary float) and an integer with a
leading zero is refused instead of being read as octal, both because money is written here; and a date stays text,
because model names look like dates.

`load_document` also tells the line of every key, and puts in environment variables: `${NAME}` in a value, only for the
names it is given. An unquoted value is then read as if the variable's text stood there, a quoted one stays text.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import NoReturn

import yaml
from yaml.constructor import ConstructorError

from core.errors import ConfigurationError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_ALIASES = 16
MAX_VALUES = 100_000
"""Values after aliases are unfolded: sixteen aliases in a chain would otherwise make a megabyte a gigabyte."""
MAX_VARIABLE_CHARACTERS = 4096

KeyPath = tuple[str | int, ...]
_PLAIN_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*(_[0-9]+)*)\Z")
_OPENING = (yaml.MappingStartEvent, yaml.SequenceStartEvent)
_CLOSING = (yaml.MappingEndEvent, yaml.SequenceEndEvent)
_VARIABLE = re.compile(r"(\$?)\$\{([^}]*)\}")
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_STR_TAG = "tag:yaml.org,2002:str"


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document, and the line (from 1) of every key and list item by its path."""

    content: object
    lines: Mapping[KeyPath, int]


def load_yaml(path: Path) -> object:
    """Read one YAML document; mappings have text keys, decimals are `Decimal`, an empty file is None.

    Raises:
        ConfigurationError: the file cannot be read, passes a bound, repeats a key or is not plain YAML.
    """
    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, file: str) -> object:
    """Parse `text` under the same rules; `file` is the name used in errors."""
    return parse_document(text, file).content


def parse_document(text: str, file: str, variables: Mapping[str, str | None] | None = None) -> Document:
    """Parse `text` and note the line of every key.

    Args:
        text: one YAML document.
        file: the name used in errors.
        variables: what `${NAME}` stands for in values (None: it is not set); without it, `${NAME}` is plain text.

    Raises:
        ConfigurationError: as `load_yaml`, or a variable that is not listed or not set.
    """
    try:
        _check_bounds(text, file)
        loader = _ExactLoader(text)
        root = loader.get_single_node()
        if root is None:
            return Document(None, {})
        if _unfolded_values(root, {}) > MAX_VALUES:
            raise ConfigurationError(file, "", f"more than {MAX_VALUES} values", "split it, or use fewer aliases")
        if variables is not None:
            _Substitution(loader, variables).apply(root)
        content = loader.construct_document(root)
        lines: dict[KeyPath, int] = {}
        _note_lines(root, (), lines)
        return Document(content, lines)
    except yaml.MarkedYAMLError as problem:
        raise _refusal(file, problem) from problem
    except (yaml.YAMLError, UnicodeError) as problem:
        raise ConfigurationError(
            file, "", f"not valid YAML ({_one_line(problem)})", "save it as UTF-8 text"
        ) from problem
    except RecursionError as problem:
        raise ConfigurationError(file, "", "nested too deeply", f"keep to {MAX_DEPTH} levels") from problem


def read_text(path: Path) -> str:
    """Read a UTF-8 file of at most 1 MiB.

    Raises:
        ConfigurationError: it cannot be read, is larger, or is not UTF-8.
    """
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
            if key.tag != _STR_TAG:
                raise ConstructorError(None, None, f"the key {_shown(key)} is not text; quote it", key.start_mark)
            if key.value in seen:
                raise ConstructorError(None, None, f"the key {key.value!r} occurs twice; keep one", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


class _Substitution:
    """Puts the environment's variables into the values of a document, each node once however often it is aliased."""

    def __init__(self, loader: yaml.CSafeLoader, variables: Mapping[str, str | None]) -> None:
        self._loader = loader
        self._variables = variables
        self._seen: set[int] = set()
        self._characters = 0

    def apply(self, node: yaml.Node) -> None:
        """Change `node` and what is below it in place."""
        if id(node) in self._seen:
            return
        self._seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            for _, value in node.value:
                self.apply(value)
        elif isinstance(node, yaml.SequenceNode):
            for item in node.value:
                self.apply(item)
        elif isinstance(node, yaml.ScalarNode) and node.tag == _STR_TAG and "${" in node.value:
            scalar = node
            node.value = _VARIABLE.sub(lambda found: self._text(found, scalar), node.value)
            if not node.style:
                node.tag = self._loader.resolve(yaml.ScalarNode, node.value, (True, False))  # type: ignore[no-untyped-call]

    def _text(self, found: re.Match[str], node: yaml.ScalarNode) -> str:
        escaped, name = found.groups()
        if escaped:
            return found.group()[1:]
        if not _VARIABLE_NAME.match(name):
            self._refuse(node, f"${{{name[:40]}}} names no variable; write $${{ for a plain ${{")
        if name not in self._variables:
            self._refuse(
                node, f"the variable {name!r} may not be used; list it under `environment` in the operator's file"
            )
        text = self._variables[name]
        if text is None:
            self._refuse(node, f"the variable {name!r} is not set; export it")
        if len(text) > MAX_VARIABLE_CHARACTERS or not text.isprintable():
            self._refuse(node, f"the variable {name!r} is not one line of text; shorten it")
        self._characters += len(text)
        if self._characters > MAX_BYTES:
            self._refuse(node, "the variables add more than 1 MiB; use fewer")
        return text

    @staticmethod
    def _refuse(node: yaml.ScalarNode, problem: str) -> NoReturn:
        raise ConstructorError(None, None, problem, node.start_mark)


def _unfolded_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Count keys and values as if every alias were written out; `known` holds what was counted, by node."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    count = known.get(id(node))
    if count is None:
        below = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        count = known[id(node)] = 1 + sum(_unfolded_values(part, known) for part in below)
    return count


def _note_lines(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int]) -> None:
    """Note lines after construction, which has merged `<<` into its mapping with the winning key last."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            lines[*path, key.value] = key.start_mark.line + 1
            _note_lines(value, (*path, key.value), lines)
    elif isinstance(node, yaml.SequenceNode):
        for at, item in enumerate(node.value):
            lines[*path, at] = item.start_mark.line + 1
            _note_lines(item, (*path, at), lines)


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
