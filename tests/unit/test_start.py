"""What a start loads before it listens: nothing that only some requests need."""

import subprocess
import sys
from pathlib import Path

from tests.e2e.gateway_process import REMOTE, write_configuration

LATER = {"torch", "transformers", "sentence_transformers", "faiss", "openvino_genai", "pydantic", "redis"}
LATER |= {"joserfc", "opentelemetry.sdk"}
BUILD = """
import sys
from pathlib import Path
import gateway.serving
from gateway.compose import build
from gateway.settings.operator import load_settings
build(load_settings(Path("headgate.yaml")))
print(*sys.modules)
"""
SETTINGS = """
import sys
from pathlib import Path
from gateway.settings.operator import load_settings
load_settings(Path("headgate.yaml"))
print(*sys.modules)
"""


def loaded(script: str, folder: Path) -> set[str]:
    write_configuration(
        folder, REMOTE.format(base_url="http://127.0.0.1:9/v1", small="a", large="b"), {"acme": "tenant: acme\n"}
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_a_gateway_that_is_built_has_loaded_no_model_no_store_and_no_exporter_that_it_does_not_use(
    tmp_path: Path,
) -> None:
    found = loaded(BUILD, tmp_path)
    assert "litestar" in found
    assert sorted(LATER & found) == []


def test_the_settings_are_read_without_http_and_cryptography(tmp_path: Path) -> None:
    found = loaded(SETTINGS, tmp_path)
    assert "msgspec" in found
    assert sorted({"httpx", "aiohttp", "litestar", "numpy", "joserfc", "cryptography"} & found) == []
