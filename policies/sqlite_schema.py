"""SQLite files as our stores open them: write-ahead log, and a schema version per component that is never guessed."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

from core.errors import ConfigurationError

READ_TIMEOUT_S = 2.0


def open_database(path: Path, component: str, migrations: tuple[str, ...]) -> sqlite3.Connection:
    """Open or create the file and bring the tables of `component` up to date.

    `migrations[n]` is the script that leads from version n to n + 1; several components may share one file. Commits are
    written to the log without waiting for the disk (`synchronous=NORMAL`): a killed process loses nothing committed, a
    power cut may lose what came after the last checkpoint.

    Raises:
        ConfigurationError: the file cannot be used, or a newer program wrote it.
    """
    _name_plain_types()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            _migrate(connection, str(path), component, migrations)
        except BaseException:
            connection.close()
            raise
    except (OSError, sqlite3.Error) as problem:
        mend = "check that the folder is writable and the file is Headgate's"
        raise ConfigurationError(str(path), "", f"cannot be used as a database ({problem})", mend) from problem
    return connection


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a file that its writer may be using, for reading alone: nobody who reads slowly holds up a commit.

    Raises:
        sqlite3.Error: there is no such file, or it cannot be read.
    """
    file = f"{path.absolute().as_uri()}?mode=ro"
    with closing(sqlite3.connect(file, uri=True, timeout=READ_TIMEOUT_S)) as connection:
        yield connection


def _name_plain_types() -> None:
    """Say that NULL and bytes are bound as they are: Python's module would ask each one how, by a failing look-up."""
    nothing: dict[None, None] = {}
    sqlite3.register_adapter(type(None), cast(Callable[[None], None], nothing.get))  # None for None, by no Python code
    sqlite3.register_adapter(bytes, bytes)


def _migrate(connection: sqlite3.Connection, file: str, component: str, migrations: tuple[str, ...]) -> None:
    connection.execute(
        "CREATE TABLE IF NOT EXISTS schema_versions (component TEXT PRIMARY KEY, version INTEGER NOT NULL)"
    )
    query = "SELECT version FROM schema_versions WHERE component = ?"
    version = (connection.execute(query, (component,)).fetchone() or (0,))[0]
    if version > len(migrations):
        problem = f"written by a newer program (schema {version}, this one knows {len(migrations)})"
        raise ConfigurationError(file, component, problem, "upgrade headgate or use another state file")
    for number, script in enumerate(migrations[version:], start=version + 1):
        stamp = f"INSERT OR REPLACE INTO schema_versions VALUES ('{component}', {number})"  # noqa: S608  both are ours
        connection.executescript(f"BEGIN IMMEDIATE; {script}; {stamp}; COMMIT;")
