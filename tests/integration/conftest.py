"""One scripted upstream for all integration tests, as new for each."""

from collections.abc import Iterator

import pytest

from tests.upstream.process import RunningUpstream, run_upstream


@pytest.fixture(scope="session")
def upstream_process() -> Iterator[RunningUpstream]:
    with run_upstream() as running:
        yield running


@pytest.fixture
def upstream(upstream_process: RunningUpstream) -> RunningUpstream:
    upstream_process.reset()
    return upstream_process
