"""CPU time of a process group, from a made-up `/proc` and from the real one."""

import os
from fractions import Fraction
from pathlib import Path

import pytest

from backends.engines.cpu_time import group_cpu_s

TICKS = os.sysconf("SC_CLK_TCK")


def process(proc: Path, pid: int, group: int, times: tuple[int, int, int, int], name: str = "worker") -> None:
    """Write a stat line as proc_pid_stat(5) has it, with unlike numbers in the fields that must not count."""
    (proc / str(pid)).mkdir()
    fields = ["S", "1", str(group), *("7",) * 8, *map(str, times), "20", "0", "1", "0", "555"]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


def test_every_process_of_the_group_counts_with_its_ended_children(tmp_path: Path) -> None:
    process(tmp_path, 10, 10, (1, 2, 4, 8))
    process(tmp_path, 11, 10, (16, 32, 0, 0), name="odd) name (x")
    process(tmp_path, 12, 12, (1000, 0, 0, 0))
    (tmp_path / "13").mkdir()
    assert group_cpu_s(10, tmp_path) == Fraction(63, TICKS)


def test_a_group_that_is_gone_is_an_error_and_not_zero(tmp_path: Path) -> None:
    with pytest.raises(ProcessLookupError, match="group 10"):
        group_cpu_s(10, tmp_path)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc here")
def test_the_real_proc_agrees_with_the_clock_of_this_process() -> None:
    before, own = group_cpu_s(os.getpgrp()), os.times()
    spent = os.times()
    while spent.user + spent.system - own.user - own.system < 0.1:
        spent = os.times()
    assert group_cpu_s(os.getpgrp()) - before >= Fraction(8, 100)
