"""`headgate models quantize` for real: a tiny Llama of random weights, NNCF in the conversion environment, the gate.

Needs that environment: `make models`, or its Python in HEADGATE_CONVERT_PYTHON.
"""

import json
import os
from pathlib import Path

import pytest

from backends.engines.bare_environment import SOURCE_ROOT
from backends.engines.recipes import load_recipe
from core.errors import ConfigurationError
from gateway.cli import main
from gateway.hosting.evaluations import check_evaluated
from policies.safe_yaml import load_yaml
from tests.tiny_llama import TOKENIZER, write_tiny_llama

PYTHON = Path(os.environ.get("HEADGATE_CONVERT_PYTHON", SOURCE_ROOT / ".venv-convert" / "bin" / "python"))

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not PYTHON.is_file(), reason="no conversion environment: `make models` installs it"),
    pytest.mark.skipif(not (TOKENIZER / "tokenizer.json").is_file(), reason="the bundled tokenizer is not here"),
]


def test_a_model_is_quantised_evaluated_and_held_back_until_it_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tiny_llama(tmp_path / "hf")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Sort these numbers: {n} 3 9"}) + "\n" for n in range(20)))
    arguments = ["models", "quantize", str(source), "--like", "bundled-large", "--calibrate", str(prompts)]
    arguments += ["--out", str(tmp_path / "int4"), "--group-size", "64", "--python", str(PYTHON), "--max-tokens", "4"]
    arguments += ["--config", str(tmp_path / "none.yaml"), "--least-agreement", "1", "--json"]
    code = main(arguments)
    found = json.loads(capsys.readouterr().out)
    assert code == (0 if found["agreement"] == 1 else 1), "random weights rarely agree word for word"
    assert found["tasks"] == 4, "every fifth prompt was held out"
    assert (found["subject"]["precision"], found["reference"]["precision"]) == ("int4", "fp16")

    made = json.loads((tmp_path / "int4" / "quantization.json").read_text())
    assert (made["method"], made["prompts"], made["group_size"]) == ("awq", 16, 64)
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(".")) == []
    recipe = load_recipe(tmp_path / "int4.yaml", load_yaml)
    if found["passed"]:
        check_evaluated(recipe, tmp_path)
    else:
        with pytest.raises(ConfigurationError, match="did not pass its evaluation"):
            check_evaluated(recipe, tmp_path)
    (tmp_path / "int4.evaluations.json").unlink()
    with pytest.raises(ConfigurationError, match="nothing says that these weights were evaluated"):
        check_evaluated(recipe, tmp_path)
