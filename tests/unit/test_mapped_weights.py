from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from cache.mapped_weights import MappedWeights

TENSORS: dict[str, NDArray[Any]] = {
    "words": np.arange(12, dtype=np.float32).reshape(3, 4),
    "places": np.array([7, -1], dtype=np.int64),
    "scale": np.array(0.5, dtype=np.float16),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "np"})
    return path


def test_the_tensors_are_those_of_the_file(file: Path) -> None:
    found = MappedWeights(file).tensors
    assert set(found) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert found[name].dtype == tensor.dtype
        np.testing.assert_array_equal(found[name], tensor)


def test_what_was_let_go_is_read_again(file: Path) -> None:
    mapped = MappedWeights(file)
    assert mapped.tensors["words"].sum() == 66
    mapped.let_go()
    np.testing.assert_array_equal(mapped.tensors["words"], TENSORS["words"])


def test_a_kind_that_is_not_known_is_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b'"F16"', b'"F17"'))
    with pytest.raises(ValueError, match="F17"):
        MappedWeights(file)
