"""Task files that tiers are evaluated on: what is asked, what counts as right, and when two answers agree.

A suite is JSON lines of `{"question": …, "answer": …, "check": …, "family": …}`. Without an answer a task has no
right or wrong and counts for the agreement of two models alone, so that a file of prompts is a suite, too.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Literal

import msgspec

from core.errors import ConfigurationError

Check = Literal["exact", "contains", "number", "regex"]
NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
MAX_TASKS = 100_000
MAX_LINE_BYTES = 1 << 20
MEND = 'write one {"question": …, "answer": …} a line'


class Message(msgspec.Struct, frozen=True):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of a suite: a question, or a whole conversation in `messages`."""

    question: str | None = None
    messages: tuple[Message, ...] = ()
    answer: str | None = None
    check: Check = "exact"
    family: str = "all"

    @property
    def conversation(self) -> tuple[Message, ...]:
        """Return what is sent."""
        return self.messages or (Message("user", self.question or ""),)


@dataclass(frozen=True, slots=True)
class Suite:
    """The tasks of one file; `name` is shown, `content` tells it from others without holding its texts."""

    name: str
    content: bytes
    tasks: tuple[Task, ...]

    def only(self, families: frozenset[str]) -> "Suite":
        """Return the tasks of some families, all of them for none.

        Raises:
            ConfigurationError: there is no such family.
        """
        known = {task.family for task in self.tasks}
        if families - known:
            problem = f"has no family {sorted(families - known)[0]!r}"
            raise ConfigurationError(self.name, "", problem, f"name some of {', '.join(sorted(known))}")
        return Suite(
            self.name, self.content, tuple(one for one in self.tasks if not families or one.family in families)
        )


def load_suite(path: Path) -> Suite:
    """Read a task file; empty lines count for nothing.

    Raises:
        ConfigurationError: it cannot be read, or one of its lines is no task; the message names the line.
    """
    try:
        content = path.read_bytes()
    except OSError as problem:
        raise ConfigurationError(str(path), "", f"cannot be read ({problem.strerror})", "correct the path") from problem
    lines = [(at, line) for at, line in enumerate(content.splitlines(), 1) if line.strip()]
    if not 1 <= len(lines) <= MAX_TASKS:
        raise ConfigurationError(str(path), "", f"has {len(lines)} tasks", f"write 1 to {MAX_TASKS}")
    return Suite(path.name, content, tuple(_task(line, str(path), at) for at, line in lines))


def is_right(task: Task, text: str) -> bool | None:
    """Say whether an answer is right, None where the suite does not know."""
    if task.answer is None:
        return None
    match task.check:
        case "exact":
            return text.strip() == task.answer.strip()
        case "contains":
            return task.answer.casefold() in text.casefold()
        case "number":
            return last_number(text) == last_number(task.answer)
        case "regex":
            return re.search(task.answer, text) is not None


def agree(task: Task, one: str, other: str) -> bool:
    """Say whether two answers amount to the same: the same text but for spaces, the same number, or both right."""
    if one.split() == other.split() or (is_right(task, one) and is_right(task, other)):
        return True
    return task.check == "number" and last_number(one) is not None and last_number(one) == last_number(other)


def last_number(text: str) -> Decimal | None:
    """Return the last number of a text, with which models end their reckoning."""
    found = NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None


def _task(line: bytes, file: str, at: int) -> Task:
    where = f"line {at}"
    if len(line) > MAX_LINE_BYTES:
        raise ConfigurationError(file, where, "is longer than 1 MiB", "shorten the task")
    try:
        task = msgspec.json.decode(line, type=Task)
    except msgspec.MsgspecError as problem:
        raise ConfigurationError(file, where, str(problem).lower(), MEND) from problem
    if (task.question is None) == (not task.messages):
        raise ConfigurationError(file, where, "needs exactly one of `question` and `messages`", MEND)
    if task.answer is not None:
        _check_answer(task, task.answer, file, where)
    return task


def _check_answer(task: Task, answer: str, file: str, where: str) -> None:
    try:
        if task.check == "regex":
            re.compile(answer)
        if task.check == "number" and last_number(answer) is None:
            raise InvalidOperation(f"{answer[:40]!r} holds no number")
        if not answer.strip():
            raise ValueError("is empty")
    except (re.error, ValueError, InvalidOperation) as problem:
        raise ConfigurationError(file, where, f"its answer cannot be checked: {problem}", MEND) from problem
