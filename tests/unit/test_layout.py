"""The house rules that no import contract can state."""

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
