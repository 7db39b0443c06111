"""The policies as they would be with one tenant's file changed, without touching the folder in force."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from core.errors import ConfigurationError
from policies.loading import Known, PolicySet, load_policies
from policies.safe_yaml import parse_yaml, read_text


@dataclass(frozen=True, slots=True)
class CandidatePolicies:
    """Loads what-if policies; `folder`, `known` and `variables` are those of the policies in force."""

    folder: Path
    known: Known
    variables: Mapping[str, str | None]

    def at(self, path: Path, tenant: str | None = None) -> PolicySet:
        """Return what a folder of policies, or one changed file, would put in force; slow.

        Args:
            path: a policy folder, or a tenant's file as somebody would like it; one without `tenant` is taken for
                `defaults.yaml`.
            tenant: whose file it is, where it does not say.

        Raises:
            ConfigurationError: it cannot be loaded.
        """
        if path.is_dir():
            return load_policies(path, self.known, self.variables)
        text = read_text(path)
        written = parse_yaml(text, str(path))
        named = written.get("tenant") if isinstance(written, dict) else None
        return self.with_file(tenant or str(named or "defaults"), text)

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
