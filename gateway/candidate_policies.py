"""The policies as they would be with one tenant's file changed, without touching the folder in force."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import ConfigurationError
from policies.loading import Known, PolicySet, load_policies


@dataclass(frozen=True, slots=True)
class CandidatePolicies:
    """Loads what-if policies; `folder`, `known` and `variables` are those of the policies in force."""

    folder: Path
    known: Known
    variables: Mapping[str, str | None]

    def with_file(self, tenant: str, text: str) -> PolicySet:
        """Return all policies, with `text` in place of the tenant's file; slow, so call it in a thread.

        Raises:
            ConfigurationError: the text cannot be loaded; the file is named as it would lie in the folder.
        """
        with TemporaryDirectory(prefix="headgate-candidate-") as scratch:
            folder = Path(scratch) / self.folder.name
            shutil.copytree(self.folder, folder)
            (folder / f"{tenant}.yaml").write_text(text)
            try:
                return load_policies(folder, self.known, self.variables)
            except ConfigurationError as problem:
                problem.message = problem.message.replace(f"{scratch}/", "")
                raise
