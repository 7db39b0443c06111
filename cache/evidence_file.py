"""Keep the tenants' local evidence in one file from start to start; scores, counts and keyed hashes, never texts."""

import logging
import os
import tempfile
from pathlib import Path

import msgspec

from cache.calibration import ScoreTable
from cache.local_evidence import LocalEvidence

log = logging.getLogger(__name__)


def load_evidence(file: Path, table: ScoreTable, encoder: str) -> LocalEvidence:
    """Read the evidence; a file that cannot be used is one warning and a fresh start under the shipped bound."""
    evidence = LocalEvidence(table, encoder)
    try:
        evidence.restore(file.read_bytes())
    except FileNotFoundError:
        return evidence
    except (OSError, msgspec.MsgspecError, ValueError) as problem:
        log.warning(
            "local evidence not read, shipped thresholds apply", extra={"file": str(file), "error": str(problem)}
        )
        return LocalEvidence(table, encoder)
    return evidence


def save_evidence(file: Path, evidence: LocalEvidence) -> None:
    """Write the evidence in one step, readable by this user alone.

    Raises:
        OSError: it cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=file.parent, prefix=file.name)
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(evidence.dump())
        Path(name).replace(file)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
