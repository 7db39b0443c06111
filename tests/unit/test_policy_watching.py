"""Hot reload: a change is taken up whole or not at all."""

import asyncio
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


async def test_the_swap_of_a_config_map_is_one_change(tmp_path: Path) -> None:
    def publish(name: str, cap: int) -> None:
        (tmp_path / name).mkdir()
        (tmp_path / name / "acme.yaml").write_text(f"include: [common.yaml]\n{GOOD.format(cap)}")
        (tmp_path / name / "common.yaml").write_text(f"limits: {{concurrency: {cap}}}\n")
        (tmp_path / "..new").symlink_to(name)
        (tmp_path / "..new").rename(tmp_path / "..data")

    publish("..1", 1)
    for file in ("acme.yaml", "common.yaml"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    watcher = PolicyWatcher(tmp_path, KNOWN)
    assert watcher.current.tenants() == ("acme",)
    publish("..2", 2)
    assert await watcher.poll() is None
    result = await watcher.poll()
    assert result is not None
    assert (result.changed, result.is_loaded) == (("acme",), True)
    assert (cap(watcher), watcher.current.policies["acme"].limits.concurrency) == (2, 2)


async def test_a_change_in_an_included_file_below_the_folder_is_seen(tmp_path: Path) -> None:
    (tmp_path / "teams").mkdir()
    write(tmp_path / "teams", "red", "max_output_tokens: 1\n")
    (tmp_path / "teams" / "loop").symlink_to("..")
    write(tmp_path, "acme", "tenant: acme\ninclude: [teams/red.yaml]\n")
    watcher = PolicyWatcher(tmp_path, KNOWN)
    write(tmp_path / "teams", "red", "max_output_tokens: 2\n")
    await watcher.poll()
    await watcher.poll()
    assert cap(watcher) == 2


async def test_a_reload_after_a_failed_one_clears_the_problem(watcher: PolicyWatcher, tmp_path: Path) -> None:
    write(tmp_path, "acme", "tenant: [")
    failed = await watcher.reload()
    assert not failed.is_loaded
    write(tmp_path, "acme", GOOD.format(9))
    assert (await watcher.reload()).is_loaded
    assert watcher.problem is None
    assert cap(watcher) == 9


async def test_reloads_at_the_same_time_come_one_after_the_other(watcher: PolicyWatcher, tmp_path: Path) -> None:
    write(tmp_path, "acme", GOOD.format(4))
    results = await asyncio.gather(*(watcher.reload() for _ in range(5)))
    assert sorted(result.changed for result in results) == [(), (), (), (), ("acme",)]
    assert {result.version for result in results} == {watcher.current.version}


async def test_variables_reach_policies_on_reload(tmp_path: Path) -> None:
    write(tmp_path, "acme", "tenant: acme\nmax_output_tokens: ${CAP}\n")
    watcher = PolicyWatcher(tmp_path, KNOWN, {"CAP": "6"})
    assert (await watcher.reload()).is_loaded
    assert cap(watcher) == 6
