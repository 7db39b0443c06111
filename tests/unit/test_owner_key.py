import stat
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from gateway.admin.owner_key import load_owner_key


def test_the_first_start_makes_a_key_for_its_user_alone(tmp_path: Path) -> None:
    file = tmp_path / "var" / "admin.key"
    key = load_owner_key(file)
    assert key.startswith("hga_")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_owner_key(file) == key


def test_a_short_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    file.write_text("secret\n")
    with pytest.raises(ConfigurationError, match=r"admin\.key_file: shorter than 32 characters"):
        load_owner_key(file)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"admin\.key_file"):
        load_owner_key(tmp_path)
