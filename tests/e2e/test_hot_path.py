"""The calls that one request and one frame make do not grow unseen: those of this version are on record."""

import json
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from benchmarks.hot_path_guard import COUNTS, counted, grown
from benchmarks.overhead_targets import Place, running, upstream
from tests.upstream.process import unused_port

RECORDED = Path(__file__).parents[2] / "benchmarks" / "results" / "hot_path_guard.json"


def recorded() -> dict[str, float]:
    """Return what was recorded of this version.

    Raises:
        StopIteration: nothing was; run `python -m benchmarks.hot_path_guard` before a release.
    """
    entries = json.loads(RECORDED.read_text())["entries"]
    entry: dict[str, float] = next(one for one in entries if one["version"] == version("headgate"))
    return entry


def test_this_version_is_on_record() -> None:
    assert set(COUNTS) <= set(recorded())


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk on this machine (Debian: apt-get install wrk)")
def test_a_request_and_a_frame_make_hardly_more_calls_than_are_on_record(tmp_path: Path) -> None:
    port, count = unused_port(), tmp_path / "count"
    command = (sys.executable, "-m", "benchmarks.counting_gateway", str(count))
    with (
        upstream(port, tmp_path),
        running("headgate", Place(tmp_path / "gateway", port, command=command)) as ours,
    ):
        figures = counted(ours, count)
    assert grown(recorded(), figures) == []
