"""The operator's wish for reloads of a hosted engine, as YAML says it."""

import re
from datetime import time
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from backends.engines.reload_plan import ReloadPlan
from core.errors import ConfigurationError
from policies.schema import says

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
DURATION = re.compile(r"(\d+)([smhd])")
WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


class ReloadEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """When a hosted engine is replaced by a new process."""

    every: Annotated[str | None, says("Age at which it is replaced: a number and s, m, h or d, such as `6h`.")] = None
    between: Annotated[str | None, says("Only in this daily window, such as `02:00-05:00`.")] = None
    zone: Annotated[str, says("IANA zone of the window.")] = "UTC"
    on_change: Annotated[bool, says("Also when the files of its weights change.")] = False


def reload_plan(entry: ReloadEntry | None, file: str, key: str) -> ReloadPlan | None:
    """Return the plan, None without one.

    Raises:
        ConfigurationError: a duration, window or zone cannot be read, or nothing would ever be reloaded.
    """
    if entry is None:
        return None
    if entry.every is None and not entry.on_change:
        raise ConfigurationError(file, key, "never reloads", "write `every: 6h`, `on_change: true`, or both")
    every_s = None
    if entry.every is not None:
        found = DURATION.fullmatch(entry.every)
        every_s = int(found[1]) * SECONDS[found[2]] if found else 0
        if not every_s:
            what = f"{entry.every!r} is no duration"
            raise ConfigurationError(file, f"{key}.every", what, "write a number and s, m, h or d, such as 6h")
    return ReloadPlan(every_s, _window(entry.between, file, key), _zone(entry.zone, file, key), entry.on_change)


def _window(text: str | None, file: str, key: str) -> tuple[time, time] | None:
    if text is None:
        return None
    found = WINDOW.fullmatch(text)
    if found is None or found[1] + found[2] == found[3] + found[4]:
        what = f"{text!r} is no window of a day"
        raise ConfigurationError(file, f"{key}.between", what, "write HH:MM-HH:MM, such as 02:00-05:00")
    return time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))


def _zone(name: str, file: str, key: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as problem:
        what = f"there is no zone {name!r}"
        raise ConfigurationError(file, f"{key}.zone", what, "write an IANA name such as Europe/Berlin") from problem
