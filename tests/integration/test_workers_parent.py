"""The parent of workers: real processes that end in every way."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import json, os, signal, sys, time
from gateway.workers import parent
from gateway.workers.parent import Parent, tell_ready

FILE = sys.argv[1]

def note(what, number):
    with open(FILE, "a") as file:
        file.write(json.dumps([what, number]) + "\\n")

def lines():
    return [json.loads(line) for line in open(FILE)] if os.path.exists(FILE) else []

def work(number):
    note("start", number)
    WORK

parent.FIRST_DELAY_S = 0.01
sys.exit(Parent(2, work, lambda n: note("up", n), lambda n: note("down", n)).run())
"""
CRASHES = """
    tell_ready()
    if number == 1:
        if lines().count(["start", 1]) == 4:
            os.kill(os.getppid(), signal.SIGTERM)
            signal.pause()
        os._exit(7)
    signal.pause()
"""
REFUSES = """
    from core.errors import ConfigurationError
    raise ConfigurationError("file", "key", "is wrong", "mend it")
"""


def run(folder: Path, work: str) -> tuple[subprocess.CompletedProcess[str], list[list[object]]]:
    file = folder / "noted"
    script = SCRIPT.replace("    WORK\n", work)
    done = subprocess.run([sys.executable, "-c", script, str(file)], capture_output=True, text=True, timeout=60)
    return done, [json.loads(line) for line in file.read_text().splitlines()]


def test_a_worker_that_ends_again_and_again_is_started_with_growing_delays_and_told_as_down(tmp_path: Path) -> None:
    done, noted = run(tmp_path, CRASHES)
    assert done.returncode == 0
    assert noted.count(["start", 0]) == 1, "the other worker is left alone"
    assert noted.count(["start", 1]) == 4
    assert noted.count(["down", 1]) == 2, "the first start again is at once"
    assert noted.index(["start", 0]) < noted.index(["start", 1])


def test_a_first_start_that_is_refused_ends_all_with_one_line(tmp_path: Path) -> None:
    done, noted = run(tmp_path, REFUSES)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["headgate: file: key: is wrong; mend it"]
    assert [one for one in noted if one[0] == "start"] == [["start", 0]], "the others wait for the first"
