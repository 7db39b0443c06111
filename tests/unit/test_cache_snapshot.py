"""A snapshot comes back whole, or is left aside with a warning."""

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cache.snapshot import Piece, Position, SnapshotFile
from tests.caching import direction

PLACE = Position("era-1", 42, "1700000000000-0")


def pieces() -> Iterator[Piece]:
    yield "p", ["a", "b"], np.stack([direction("a"), direction("b")])
    yield "q", ["c"], direction("c")[None, :]


def saved(folder: Path) -> Path:
    path = folder / "deep" / "index.snapshot"
    SnapshotFile(path, "words").save(PLACE, pieces())
    return path


def test_a_snapshot_comes_back_with_its_position(tmp_path: Path) -> None:
    loaded = SnapshotFile(saved(tmp_path), "words").load()
    assert loaded is not None
    position, found = loaded
    assert position == PLACE
    for (partition, ids, rows), (partition_2, ids_2, rows_2) in zip(pieces(), found, strict=True):
        assert (partition, ids) == (partition_2, ids_2)
        assert np.allclose(rows, rows_2, atol=1e-3)


def test_a_missing_snapshot_is_no_problem(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert SnapshotFile(tmp_path / "none", "words").load() is None
    assert not caplog.records


@pytest.mark.parametrize("cut", [0, 5, 8, 10, 60, 1_000, -33, -32, -1])
def test_a_truncated_snapshot_is_left_aside_with_a_warning(
    tmp_path: Path, cut: int, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:cut])
    with caplog.at_level(logging.WARNING):
        assert SnapshotFile(path, "words").load() is None
    assert len(caplog.records) == 1
    assert "snapshot" in caplog.text


@pytest.mark.parametrize("at", [0, 9, 40, 700, -1])
def test_a_damaged_snapshot_is_left_aside(tmp_path: Path, at: int) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    assert SnapshotFile(path, "words").load() is None


def test_a_snapshot_of_another_encoder_is_left_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert SnapshotFile(saved(tmp_path), "another").load() is None
    assert [record.problem for record in caplog.records] == ["of another encoder"]  # type: ignore[attr-defined]


def test_a_snapshot_that_cannot_be_finished_leaves_the_old_one(tmp_path: Path) -> None:
    def broken() -> Iterator[Piece]:
        yield from pieces()
        raise RuntimeError("index failed for the test")

    path = saved(tmp_path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError, match="index failed"):
        SnapshotFile(path, "words").save(PLACE, broken())
    assert path.read_bytes() == before
    assert SnapshotFile(path, "words").load() is not None
    assert path.stat().st_mode & 0o777 == 0o600
