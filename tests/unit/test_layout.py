"""The house rules that no import contract can state."""

import re
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PACKAGES = ("core", "policies", "cache", "router", "backends", "gateway")
HEAVY = ("torch", "faiss", "numpy", "litestar", "httpx", "aiohttp", "sentence_transformers", "openvino_genai", "rich")


def test_our_top_level_names_belong_to_our_distribution_alone() -> None:
    owners = packages_distributions()
    for name in PACKAGES:
        assert set(owners.get(name, ["headgate"])) == {"headgate"}, name


def test_no_module_is_named_after_a_sibling_package() -> None:
    modules = [path for package in PACKAGES for path in (REPOSITORY / package).rglob("*.py")]
    assert modules
    assert [path for path in modules if path.stem in PACKAGES] == []


def test_the_command_line_starts_without_heavy_imports() -> None:
    script = "import sys, gateway.cli; gateway.cli.build_parser(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert "argparse" in loaded
    assert sorted(set(HEAVY) & set(loaded)) == []


def test_the_map_for_contributors_names_every_folder_of_code_and_no_other() -> None:
    table = (REPOSITORY / "CONTRIBUTING.md").read_text().partition("## Where things are")[2].partition("## ")[0]
    named = {name.rstrip("/") for name in re.findall(r"^\| `([a-z_/]+/)` \|", table, re.MULTILINE)}
    assert [name for name in sorted(named) if not (REPOSITORY / name).is_dir()] == []
    folders = {path.parent for package in PACKAGES for path in (REPOSITORY / package).glob("*/__init__.py")}
    assert {str(folder.relative_to(REPOSITORY)) for folder in folders} | set(PACKAGES) <= named


def test_the_path_of_a_request_for_contributors_names_files_that_exist() -> None:
    path = (REPOSITORY / "CONTRIBUTING.md").read_text().partition("## One request through the code")[2].partition("## ")
    named = re.findall(r"`([a-z_/]+(?:\.py|/))`", path[0])
    assert "gateway/pipeline.py" in named
    assert [name for name in named if not (REPOSITORY / name).exists()] == []
