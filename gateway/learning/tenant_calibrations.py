"""Tenants' own calibrations at work: applied to every score, followed while the file changes, refitted from outcomes.

The file is looked at every second; what cannot be read is reported once and the last good state stays.
"""

import asyncio
import logging
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from core.errors import ConfigurationError
from core.plan import Complexity
from gateway.settings.operator import Settings
from gateway.telemetry.receipt_blocks import read_receipts
from policies.sqlite_schema import reading
from router.receipt import decode_receipt
from router.tenant_calibration import History, Observed, calibrated, line_of, read_histories, rolled_back, uncalibrated
from router.weights import Manifest

logger = logging.getLogger("headgate.calibrations")
POLL_S = 1.0
MAX_OUTCOMES = 5_000
GOOD_SCORE = 0.5
_OUTCOMES = """
SELECT outcomes.request_id, outcomes.score FROM outcomes JOIN requests
ON substr(requests.request_id, -16) = substr(outcomes.request_id, -16) AND requests.request_id = outcomes.request_id
WHERE outcomes.tenant = ? AND outcomes.kind = 'answer' AND requests.tier = ? AND requests.cache IN ('miss', 'bypass')
ORDER BY outcomes.n DESC LIMIT ?
"""


def calibrations_file(settings: Settings) -> Path:
    """Return the file of every tenant's calibrations, beside the state."""
    return settings.beside("calibrations").with_suffix(".json")


class TenantCalibrations:
    """The histories in force; a tenant without one gets what the weights say."""

    def __init__(self, file: Path, manifest: Manifest) -> None:
        """Read the file, if there is one; raises ConfigurationError where it cannot be used."""
        self._file = file
        self._manifest = manifest
        self._seen = _signature(file)
        self._histories = read_histories(file)

    def applied(self, tenant: str, complexity: Complexity) -> Complexity:
        """Return what the tenant's calibration makes of a score."""
        return calibrated(complexity, self._histories.get(tenant), self._manifest)

    def poll(self) -> bool:
        """Read the file if it has changed; tell whether anything new is in force."""
        seen = _signature(self._file)
        if seen == self._seen:
            return False
        self._seen = seen
        try:
            self._histories = read_histories(self._file)
        except ConfigurationError as problem:
            logger.warning("calibrations stay as they were", extra={"problem": problem.message})
            return False
        logger.info("calibrations taken up", extra={"tenants": len(self._histories)})
        return True

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            await asyncio.sleep(POLL_S)
            await asyncio.to_thread(self.poll)


def observed_outcomes(
    settings: Settings, tenant: str, history: History, manifest: Manifest, max_rows: int = MAX_OUTCOMES
) -> list[Observed]:
    """Return what users said of answers by the cheapest tier, newest first, with what the weights had said before.

    Only requests that the weights in use judged count. What a calibration made of a score is taken back.

    Raises:
        ConfigurationError: there is no log of requests and outcomes, or it cannot be read.
    """
    path = settings.beside("requests")
    cheapest = next(iter(settings.tiers))
    try:
        with reading(path) as log:
            rows = log.execute(_OUTCOMES, (tenant, cheapest, max_rows)).fetchall()
    except sqlite3.Error as problem:
        mend = "serve with this configuration first; apps send outcomes to POST /v1/feedback"
        raise ConfigurationError(str(path), "", f"no outcomes can be read ({problem})", mend) from problem
    return list(_judged(settings, rows, history, manifest))


def _judged(
    settings: Settings, rows: list[tuple[str, float]], history: History, manifest: Manifest
) -> Iterator[Observed]:
    source = f"model:{manifest.pair}@{manifest.weights_sha256[:8]}"
    receipts = read_receipts(settings.beside("decisions"), [request_id for request_id, _ in rows])
    judged = {request_id: decode_receipt(content).inputs.complexity for request_id, content in receipts}
    for request_id, score in rows:
        complexity = judged.get(request_id)
        if complexity is None or not complexity.source.startswith(source):
            continue
        p = _by_weights_alone(complexity, history, manifest)
        if p is not None:
            yield Observed(p, score >= GOOD_SCORE)


def _by_weights_alone(complexity: Complexity, history: History, manifest: Manifest) -> float | None:
    """Return P before the calibration that the source names; None when that is not known, or P was learned."""
    if ";learned:" in complexity.source:
        return None
    _, marked, number = complexity.source.partition(";calibration:")
    if not marked:
        return complexity.p_small_suffices
    try:
        line = line_of(rolled_back(history, int(number)), manifest)
    except ValueError:
        return None
    return float(uncalibrated(np.array([complexity.p_small_suffices]), line)[0])


def _signature(file: Path) -> tuple[int, int]:
    try:
        status = file.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino
