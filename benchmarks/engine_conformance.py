"""Run the conformance suite of engine kinds, and write down which kinds passed it here and which did not run.

`python -m benchmarks.engine_conformance --json benchmarks/results/engine_conformance.json`; HEADGATE_LAB_VLLM and
HEADGATE_LAB_LLAMA_SERVER bring those kinds in. What did not run is named with its reason, and nothing is claimed of it.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

SUITES = ("tests/conformance/test_engine_kinds.py", "tests/gpu/test_transformers_cuda.py")
KINDS = ("command", "llama-server", "openvino", "transformers", "vllm")
CUDA = "transformers on CUDA"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, metavar="FILE", help="where the result goes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SUITES, f"--junitxml={report}"]
        code = subprocess.run(command, check=False).returncode
        kinds = summary(ElementTree.parse(report).getroot())
    result = {
        "command": "python -m benchmarks.engine_conformance --json FILE",
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
        "versions": {name: version(name) for name in ("openvino-genai", "transformers", "torch")}
        | _vllm()
        | _llama_server(),
        "kinds": kinds,
    }
    options.json.write_text(json.dumps(result, indent=2) + "\n")
    return code


def summary(report: ElementTree.Element) -> dict[str, dict[str, Any]]:
    """Return, by kind, how many facts passed, failed and were skipped, and why those were skipped."""
    kinds: dict[str, dict[str, Any]] = {
        name: {"passed": 0, "failed": 0, "skipped": 0, "why_skipped": []} for name in (*KINDS, CUDA)
    }
    for case in report.iter("testcase"):
        row = kinds[_kind(case)]
        skipped = case.find("skipped")
        if skipped is not None:
            row["skipped"] += 1
            reason = skipped.get("message", "")
            if reason not in row["why_skipped"]:
                row["why_skipped"].append(reason)
        else:
            row["failed" if case.find("failure") is not None or case.find("error") is not None else "passed"] += 1
    return kinds


def _kind(case: ElementTree.Element) -> str:
    if "cuda" in case.get("classname", ""):
        return CUDA
    found = re.search(r"\[([^\]]+)\]", case.get("name", ""))
    words = found[1] if found else ""
    return next(kind for kind in KINDS if words.startswith(kind))


def _vllm() -> dict[str, str]:
    program = os.environ.get("HEADGATE_LAB_VLLM")
    if not program:
        return {}
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    return {"vllm": told[-1] if told else "unknown"}


def _llama_server() -> dict[str, str]:
    program = os.environ.get("HEADGATE_LAB_LLAMA_SERVER")
    if not program:
        return {}
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version: (.*)", told.stdout + told.stderr)
    return {"llama-server": found[1] if found else "unknown"}


if __name__ == "__main__":
    sys.exit(main())
