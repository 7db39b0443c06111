"""What one of several workers goes by, and which numbers of workers are refused."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from gateway.settings.deployments import RemoteDeployment
from gateway.settings.operator import Settings, as_worker, load_settings, with_workers
from tests.e2e.gateway_process import REMOTE, write_configuration


def settings(folder: Path, more: str = "", state: str = "redis://127.0.0.1:1/0") -> Settings:
    operator = REMOTE.format(base_url="http://127.0.0.1:9/v1", small="a", large="b")
    operator = operator.replace("sqlite:var/headgate.db", state)
    operator = operator.replace('model: "a",', 'model: "a", max_concurrency: 5,')
    write_configuration(folder, operator + more, {"acme": "tenant: acme\n"})
    return load_settings(folder / "headgate.yaml")


def test_limits_of_the_gateway_are_shared_out(tmp_path: Path) -> None:
    second = as_worker(settings(tmp_path, "workers: 2\nreplicas: 3\nmax_waiting: 100\n"), 1)
    assert second.replicas == 6
    assert second.max_waiting == 50
    one, two = second.deployments["one"], second.deployments["two"]
    assert isinstance(one, RemoteDeployment)
    assert isinstance(two, RemoteDeployment)
    assert one.max_concurrency == 2
    assert two.max_concurrency is None


def test_a_worker_has_files_of_its_own_and_the_first_those_that_a_single_process_has(tmp_path: Path) -> None:
    alone = settings(tmp_path, "workers: 2\n")
    first, second = as_worker(alone, 0), as_worker(alone, 1)
    assert first.own("control") == alone.beside("control")
    assert second.own("control") != first.own("control")
    assert second.beside("requests") == first.beside("requests")


@pytest.mark.parametrize("workers", [0, -1, 65])
def test_absurd_numbers_are_refused(workers: int, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="out of range"):
        with_workers(settings(tmp_path), workers)


def test_several_workers_on_a_file_are_refused_where_the_file_is_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="redis://"):
        settings(tmp_path, "workers: 2\n", "sqlite:var/headgate.db")
