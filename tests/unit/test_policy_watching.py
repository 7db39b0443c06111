"""Hot reload: a change is taken up whole or not at all."""

from pathlib import Path

import pytest

from core.errors import ConfigurationError
from policies.watching import PolicyWatcher
from tests.policy_samples import KNOWN

GOOD = "tenant: acme\nmax_output_tokens: {}\n"


def write(folder: Path, name: str, text: str) -> None:
    """Replace a file as editors and ConfigMaps do, under a new inode."""
    draft = folder / f".{name}.draft"
    draft.write_text(text)
    draft.rename(folder / f"{name}.yaml")


@pytest.fixture
def watcher(tmp_path: Path) -> PolicyWatcher:
    write(tmp_path, "acme", GOOD.format(1))
    return PolicyWatcher(tmp_path, KNOWN)


def cap(watcher: PolicyWatcher) -> int | None:
    return watcher.current.policies["acme"].max_output_tokens


async def test_a_change_is_in_force_once_it_has_come_to_rest(watcher: PolicyWatcher, tmp_path: Path) -> None:
    before = watcher.current
    write(tmp_path, "acme", GOOD.format(2))
    assert await watcher.poll() is None
    write(tmp_path, "acme", GOOD.format(3))
    assert await watcher.poll() is None
    assert watcher.current is before
    reload = await watcher.poll()
    assert reload is not None
    assert reload.changed == ("acme",)
    assert cap(watcher) == 3
    assert before.policies["acme"].max_output_tokens == 1
    assert await watcher.poll() is None


async def test_tenants_come_and_go(watcher: PolicyWatcher, tmp_path: Path) -> None:
    write(tmp_path, "globex", "tenant: globex")
    assert (await watcher.reload()).changed == ("globex",)
    (tmp_path / "acme.yaml").unlink()
    reload = await watcher.reload()
    assert reload.changed == ("acme",)
    assert watcher.current.tenants() == ("globex",)
    assert reload.version == watcher.current.version


async def test_a_broken_file_leaves_the_last_good_policies_and_is_reported_once(
    watcher: PolicyWatcher, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = watcher.current
    write(tmp_path, "acme", "tenant: acme\nlimitz: {}")
    results = [result for _ in range(4) if (result := await watcher.poll()) is not None]
    assert [result.problem for result in results] == [watcher.problem]
    assert watcher.current is before
    assert watcher.problem is not None
    assert "did you mean 'limits'" in watcher.problem.message
    assert len(caplog.records) == 1
    write(tmp_path, "acme", GOOD.format(5))
    await watcher.poll()
    await watcher.poll()
    assert cap(watcher) == 5
    assert watcher.problem is None


async def test_an_explicit_reload_says_what_is_wrong(watcher: PolicyWatcher, tmp_path: Path) -> None:
    write(tmp_path, "defaults", "routing: {quality: 3}")
    before = watcher.current
    result = await watcher.reload()
    assert result.problem is not None
    assert "defaults.yaml: routing.quality" in result.problem.message
    assert (result.is_loaded, result.changed, result.version) == (False, (), before.version)
    assert watcher.problem is result.problem
    assert watcher.current is before


async def test_a_folder_that_vanishes_leaves_the_last_good_policies(watcher: PolicyWatcher, tmp_path: Path) -> None:
    (tmp_path / "acme.yaml").unlink()
    await watcher.poll()
    await watcher.poll()
    assert cap(watcher) == 1


def test_a_first_load_that_fails_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no tenant file"):
        PolicyWatcher(tmp_path, KNOWN)
