"""Whether the model that answered is the one that was asked for; pure.

A name is the same when it differs in case or in what stands before a slash, or adds a date, a version or `latest`:
`gpt-4o-2024-08-06` answers for `gpt-4o`, `gpt-4o-mini` does not.
"""

import re
from dataclasses import dataclass

MAX_NAME_CHARS = 200
_VERSION = re.compile(r"[-@:](\d{3,8}|\d{4}-\d{2}-\d{2}|v\d+(\.\d+)*|latest)\Z")


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """The further names under which a deployment's model may answer; `refuses` makes any other name an error."""

    also: frozenset[str] = frozenset()
    refuses: bool = False

    def other(self, asked: str, served: str | None) -> str | None:
        """Return the name of the model that answered in place of `asked`, None when nothing is wrong or known."""
        if not served or served == asked or served in self.also:
            return None
        return None if _plain(served) == _plain(asked) else served[:MAX_NAME_CHARS]


def _plain(name: str) -> str:
    return _VERSION.sub("", name.rpartition("/")[2].lower())
