"""What a check finds: an error keeps the gateway from starting or reloading, a warning is a rule that does no good."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from core.errors import ConfigurationError
from policies.documents import Origin, key_text
from policies.safe_yaml import KeyPath

Level = Literal["error", "warning"]
_LINE = re.compile(r"line (\d+)\Z")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing worth telling, and where it was written; `code` is a documented word for scripts."""

    level: Level
    code: str
    file: str
    line: int | None
    key: str
    message: str

    @property
    def where(self) -> str:
        """Return file, line and key as people and editors read them."""
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.key}" if self.key else place


def error_finding(error: ConfigurationError, origin: Origin | None = None) -> Finding:
    """Turn what start-up would refuse into a finding."""
    in_yaml = _LINE.match(error.key)
    line = int(in_yaml.group(1)) if in_yaml else None if origin is None else origin.line
    message = error.message.removeprefix(error.file).removeprefix(": ").removeprefix(error.key).removeprefix(": ")
    return Finding("error", "invalid", error.file, line, "" if in_yaml else error.key, message)


def warning(code: str, path: KeyPath, message: str, wrote: Mapping[KeyPath, Origin], file: str) -> Finding:
    """Make a warning about the value at `path`, or about `file` where nobody wrote it."""
    place = path
    while place and place not in wrote:
        place = place[:-1]
    origin = wrote.get(place)
    home, line = (file, None) if origin is None else origin
    return Finding("warning", code, home, line, key_text(path), message)


def in_order(findings: "set[Finding]") -> list[Finding]:
    """Sort findings: errors first, then by file and line."""
    return sorted(findings, key=lambda one: (one.level, one.file, one.line or 0, one.key, one.code))
