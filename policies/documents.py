"""Policy files as layers: each file after what it includes, and which file and line wrote each effective value.

One order everywhere: what the program assumes, then the files that `defaults.yaml` includes, then `defaults.yaml`, then
the files that the tenant's file includes, then the tenant's file. Each lies over the one before: mappings merge key by
key; lists and single values replace what was inherited; `null` takes an inherited value away, so that the program's
default applies again. One exception: of the knobs under `routing`, which are alternatives, a layer that sets one takes
the others of the layers below away.

An included file lies inside the policy folder, by its real path, and includes nothing itself.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

from core.errors import ConfigurationError
from policies.safe_yaml import KeyPath, parse_document, read_text
from policies.schema import key_below

DEFAULTS = "defaults.yaml"
INCLUDE = "include"
MAX_INCLUDES = 16
ALTERNATIVES = {"routing": frozenset({"quality", "max_large_share", "target_cost_usd"})}
"""Keys of a mapping of which one alone is in force: whoever writes one replaces those that were inherited."""
_UNKNOWN_KEY = re.compile(r": unknown key '([^']*)'")


class Origin(NamedTuple):
    """The file and the line (from 1) that wrote a value."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Layer:
    """One file as it was written."""

    file: str
    content: Mapping[str, object]
    lines: Mapping[KeyPath, int]


Layers = tuple[Layer, ...]
FileState = tuple[int, int, int]
ReadLayers = dict[Path, tuple[FileState, Layer]]


class PolicyFolder:
    """The files of one folder, each read once; what they may take from the environment is given by name.

    `before` is what an earlier look at the same folder read (its `read`): files that have not changed since are taken
    from there. `read` is what this look has read or taken.
    """

    def __init__(
        self, folder: Path, variables: Mapping[str, str | None] | None = None, before: ReadLayers | None = None
    ) -> None:
        self.folder = folder
        self.read: ReadLayers = {}
        self._before = before or {}
        self._variables = variables or {}
        self._included: dict[Path, Layer] = {}

    def tenant_files(self) -> list[Path]:
        """Return every `*.yaml` but the defaults, sorted; which of them others include is known once those are read.

        Raises:
            ConfigurationError: the folder cannot be read.
        """
        try:
            entries = sorted(entry for entry in self.folder.iterdir() if entry.suffix == ".yaml")
        except OSError as problem:
            reason = problem.strerror or type(problem).__name__
            mend = "create it, or correct `policies` in the operator's file"
            raise ConfigurationError(str(self.folder), "", f"the folder cannot be read ({reason})", mend) from problem
        return [entry for entry in entries if not entry.name.startswith(".") and entry.name != DEFAULTS]

    def defaults(self) -> Layers:
        """Return the defaults' layers, none when there is no such file.

        Raises:
            ConfigurationError: a file cannot be used, or the defaults name a tenant.
        """
        path = self.folder / DEFAULTS
        return (
            self.layers(path, "write keys such as `limits:`", "defaults belong to no tenant") if path.exists() else ()
        )

    def layers(self, path: Path, mend: str = "start with `tenant: NAME`", no_tenant: str | None = None) -> Layers:
        """Return what the file at `path` includes and the file itself, in the order in which they lie.

        Raises:
            ConfigurationError: the file or an included one cannot be used.
        """
        own = self._layer(path, mend, no_tenant)
        names = own.content.get(INCLUDE)
        if names is None:
            return (own,)
        included = tuple(
            self._include(name, f"{INCLUDE}[{at}]", own.file) for at, name in enumerate(_names(names, own))
        )
        return (*included, own)

    def is_included(self, path: Path) -> bool:
        """Tell whether a file that was read so far includes the one at `path`."""
        return bool(self._included) and path.resolve() in self._included

    def _layer(self, path: Path, mend: str, no_tenant: str | None) -> Layer:
        """Read one file, or take it from before when its time, size and inode are the same."""
        state = _state(path)
        known = self.read.get(path) or self._before.get(path)
        layer = known[1] if known is not None and known[0] == state else self._parsed(path, mend)
        if no_tenant is not None and "tenant" in layer.content:
            raise ConfigurationError(layer.file, "tenant", no_tenant, "remove the key")
        if state is not None:
            self.read[path] = state, layer
        return layer

    def _parsed(self, path: Path, mend: str) -> Layer:
        file = str(path)
        document = parse_document(read_text(path), file, self._variables)
        content = {} if document.content is None else document.content
        if not isinstance(content, dict):
            raise ConfigurationError(file, "", "not a mapping of keys to values", mend)
        return Layer(file, content, document.lines)

    def _include(self, name: str, key: str, file: str) -> Layer:
        root = self.folder.resolve()
        try:
            real = (root / name).resolve(strict=True)
        except (OSError, RuntimeError, ValueError) as problem:
            mend = f"name a file of {self.folder}"
            raise ConfigurationError(file, key, f"there is no file {name[:80]!r}", mend) from problem
        if not real.is_relative_to(root) or not real.is_file():
            raise ConfigurationError(file, key, f"{name[:80]!r} is not inside the policy folder", "move it there")
        if real not in self._included:
            layer = self._layer(self.folder / name, "write keys such as `limits:`", "an included file has no tenant")
            if INCLUDE in layer.content:
                raise ConfigurationError(layer.file, INCLUDE, "an included file includes nothing", "remove the key")
            self._included[real] = layer
        return self._included[real]


def _state(path: Path) -> FileState | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def _names(written: object, own: Layer) -> list[str]:
    if not isinstance(written, list) or not all(isinstance(name, str) and name for name in written):
        raise ConfigurationError(own.file, INCLUDE, "not a list of file names", "write for example [common.yaml]")
    if len(written) > MAX_INCLUDES:
        raise ConfigurationError(own.file, INCLUDE, f"more than {MAX_INCLUDES} files", "join some of them")
    return cast("list[str]", written)


def merge(inherited: Mapping[str, object], written: Mapping[str, object]) -> dict[str, object]:
    """Lay `written` over `inherited` as the head of this module says; neither is changed."""
    merged = dict(inherited)
    for key, value in written.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, Mapping):
            merged[key] = merge(_inherited_below(inherited, key, value), value)
        else:
            merged[key] = value
    return merged


def merged(layers: Sequence[Layer]) -> dict[str, object]:
    """Return the content of all layers, the last on top."""
    content: dict[str, object] = {}
    for layer in layers:
        content = merge(content, layer.content)
    return content


def origins(layers: Sequence[Layer]) -> dict[KeyPath, Origin]:
    """Return who wrote each key and list item that is in force, and who took away what `null` took away."""
    content: dict[str, object] = {}
    found: dict[KeyPath, Origin] = {}
    for layer in layers:
        _lay_origins(found, content, layer.content, (), layer)
        content = merge(content, layer.content)
    return found


def key_text(path: KeyPath) -> str:
    """Write a path as errors do, such as `budgets[0].limit_usd`."""
    text = ""
    for step in path:
        text = f"{text}[{step}]" if isinstance(step, int) else key_below(text, step)
    return text


def error_keys(error: ConfigurationError) -> tuple[str, ...]:
    """Return the keys that `error` is about, the closest first: the unknown key itself, then the one it names."""
    unknown = _UNKNOWN_KEY.search(error.message)
    return (error.key,) if unknown is None else (key_below(error.key, unknown.group(1)), error.key)


def _lay_origins(
    found: dict[KeyPath, Origin],
    inherited: Mapping[str, object],
    written: Mapping[str, object],
    above: KeyPath,
    layer: Layer,
) -> None:
    for key, value in written.items():
        path = (*above, key)
        below = _inherited_below(inherited, key, value) if isinstance(value, Mapping) else {}
        for hidden in [other for other in found if other[: len(path)] == path]:
            if not below or (len(hidden) > len(path) and hidden[len(path)] in _replaced(key, value)):
                del found[hidden]
        found[path] = Origin(layer.file, layer.lines.get(path, 1))
        if isinstance(value, Mapping):
            _lay_origins(found, below, value, path, layer)
        elif isinstance(value, list):
            items = (other for other in layer.lines if len(other) > len(path) and other[: len(path)] == path)
            found.update({item: Origin(layer.file, layer.lines[item]) for item in items})


def _inherited_below(inherited: Mapping[str, object], key: str, written: Mapping[str, object]) -> Mapping[str, object]:
    below = inherited.get(key)
    if not isinstance(below, Mapping):
        return {}
    replaced = _replaced(key, written)
    return {name: value for name, value in below.items() if name not in replaced} if replaced else below


def _replaced(key: str, written: object) -> frozenset[str]:
    """Return the inherited keys below `key` that the written ones take away."""
    alternatives = ALTERNATIVES.get(key, frozenset())
    if not isinstance(written, Mapping) or all(written.get(name) is None for name in alternatives):
        return frozenset()
    return alternatives
