"""The commands about policies and prices as a person runs them: exit codes, tables of 80 columns, JSON, and `init`."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.e2e.gateway_process import HEADGATE, REMOTE, headgate, run_gateway, write_configuration
from tests.upstream.process import RunningUpstream

OPERATOR = REMOTE.format(base_url="http://127.0.0.1:9/v1", small="a", large="b")
TENANT = 'tenant: acme\nmodels: {gpt-4o: auto}\nbudgets: [{window: month, limit_usd: "5", alerts: [0.8]}]\n'
DOUBTFUL = "tenant: acme\nmodels: {small: large}\nbudgets: [{window: month, limit_usd: 5}]\n"
COMMANDS = [("init",), *(("policy", name) for name in ("check", "explain", "diff", "schema"))]
COMMANDS += [("prices", name) for name in ("list", "check", "import")]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_configuration(tmp_path, OPERATOR, {"acme": TENANT})
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(tmp_path: Path, command: tuple[str, ...]) -> None:
    shown = headgate(*command, "--help", folder=tmp_path).stdout
    assert f"headgate {' '.join(command)}" in shown.split("example", 1)[1]


def test_check_tells_errors_and_warnings_by_exit_code_table_and_json(folder: Path) -> None:
    good = headgate("policy", "check", folder=folder)
    assert "0 errors, 0 warnings, 1 tenant" in good.stdout
    (folder / "tenants" / "acme.yaml").write_text(DOUBTFUL)
    doubtful = headgate("policy", "check", folder=folder)
    assert "tenants/acme.yaml:2" in doubtful.stdout
    assert headgate("policy", "check", "--strict", folder=folder, check=False).returncode == 1
    (folder / "tenants" / "acme.yaml").write_text("tenant: acme\nbugdets: []\nlimits: {concurrency: x}\n")
    wrong = headgate("policy", "check", "--json", folder=folder, check=False)
    report = json.loads(wrong.stdout)
    assert wrong.returncode == 2
    assert (report["valid"], report["errors"], report["tenants"]) == (False, 2, {})
    assert [(finding["line"], finding["key"]) for finding in report["findings"]] == [(2, ""), (3, "limits.concurrency")]


def test_no_table_is_wider_than_a_terminal(folder: Path) -> None:
    (folder / "tenants" / "acme.yaml").write_text(DOUBTFUL)
    (folder / "request.json").write_text('{"model": "auto", "messages": [{"role": "user", "content": "hi"}]}')
    for command in (
        ("policy", "check"),
        ("policy", "explain", "acme", "--request", "request.json"),
        ("prices", "list"),
    ):
        lines = headgate(*command, folder=folder).stdout.splitlines()
        assert max(map(len, lines)) <= 80, command
        assert all(line.endswith("│") for line in lines if line.startswith("│")), command


def test_explain_traces_values_and_the_request(folder: Path) -> None:
    (folder / "tenants" / "defaults.yaml").write_text("limits: {concurrency: 5}\n")
    (folder / "request.json").write_text('{"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}')
    shown = headgate("policy", "explain", "acme", "--request", "request.json", "--json", folder=folder)
    content = json.loads(shown.stdout)
    decided = {row["key"]: (Path(row["file"] or "").name, row["line"]) for row in content["values"]}
    assert decided["limits.concurrency"] == ("defaults.yaml", 1)
    assert decided["models.gpt-4o"] == ("acme.yaml", 2)
    assert decided["budgets[0]"] == ("acme.yaml", 3)
    assert decided["fallback"] == ("", None)
    assert [plan["tier"] for plan in content["request"]["plans"]] == ["small", "large"]
    assert {rule["key"] for rule in content["request"]["rules"]} == {"budgets[0]", "limits.concurrency"}


def test_explain_names_the_tenant_that_was_meant(folder: Path) -> None:
    refused = headgate("policy", "explain", "acm", folder=folder, check=False)
    assert refused.returncode == 2
    assert "did you mean 'acme'?" in refused.stderr


def test_diff_compares_what_is_in_force(folder: Path) -> None:
    (folder / "new").mkdir()
    (folder / "new" / "acme.yaml").write_text(TENANT.replace('"5"', '"6"'))
    assert headgate("policy", "diff", "tenants", "tenants", folder=folder).returncode == 0
    differs = headgate("policy", "diff", "tenants", "new", "--json", folder=folder, check=False)
    assert differs.returncode == 1
    (change,) = json.loads(differs.stdout)
    assert (change["tenant"], change["key"]) == ("acme", "budgets[0]")
    assert change["new"].startswith("6 USD")


def test_schema_prints_json_alone(tmp_path: Path) -> None:
    tenant = json.loads(headgate("policy", "schema", folder=tmp_path).stdout)
    operator = json.loads(headgate("policy", "schema", "--operator", folder=tmp_path).stdout)
    assert "budgets" in tenant["$defs"]["TenantFile"]["properties"]
    assert "deployments" in operator["$defs"]["OperatorFile"]["properties"]


def test_prices_are_imported_into_the_operators_file_and_then_used(folder: Path) -> None:
    (folder / "headgate.yaml").write_text(OPERATOR + "prices: mine.yaml\n")
    missing = headgate("policy", "check", folder=folder, check=False)
    assert missing.returncode == 2
    table = {"a": {"input_cost_per_token": 1e-06, "output_cost_per_token": 2e-06}, "odd": {"output_cost_per_image": 1}}
    (folder / "table.json").write_text(json.dumps(table))
    arguments = ("prices", "import", "table.json", "--as-of", "2026-08-01", "--source", "example.com")
    undated = headgate("prices", "import", "table.json", folder=folder, check=False)
    assert (undated.returncode, "add for example --as-of" in undated.stderr) == (2, True)
    headgate(*arguments, "--dry-run", folder=folder)
    assert not (folder / "mine.yaml").exists()
    done = json.loads(headgate(*arguments, "--json", folder=folder).stdout)
    assert ([row["model"] for row in done["added"]], done["left_out"]) == (["a"], ["odd"])
    assert "1 prices, all valid" in headgate("prices", "check", "mine.yaml", folder=folder).stdout
    listed = json.loads(headgate("prices", "list", "a", "--json", folder=folder).stdout)
    assert listed["prices"][0]["input_usd_per_m"] == "1"
    assert headgate("policy", "check", folder=folder).returncode == 0
    (folder / "mine.yaml").write_text("prices: {a: {}, b: {}}\n")
    broken = headgate("prices", "check", "mine.yaml", folder=folder, check=False)
    assert (broken.returncode, "2 errors" in broken.stdout) == (2, True)


def test_a_reader_that_goes_away_is_no_traceback(tmp_path: Path) -> None:
    pipe = subprocess.Popen(
        [*HEADGATE, "policy", "schema"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert pipe.stdout is not None
    assert pipe.stderr is not None
    pipe.stdout.close()
    assert pipe.stderr.read() == ""
    pipe.stderr.close()
    assert pipe.wait(60) == 1


def test_init_asks_and_writes_what_the_check_accepts(tmp_path: Path) -> None:
    asked = subprocess.run(
        [*HEADGATE, "init"],
        cwd=tmp_path,
        input="acme\n12.5\nEurope/Berlin\n\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "headgate serve" in asked.stdout
    assert "keys create --tenant acme" in asked.stdout
    assert headgate("policy", "check", "--strict", folder=tmp_path).returncode == 0
    again = headgate("init", "--tenant", "acme", "--yes", folder=tmp_path, check=False)
    assert (again.returncode, "exists already" in again.stderr) == (2, True)
    ended = subprocess.run([*HEADGATE, "init", "--dir", "x"], cwd=tmp_path, input="a\n", capture_output=True, text=True)
    assert (ended.returncode, "use --yes" in ended.stderr) == (2, True)
    assert not (tmp_path / "x").exists()


def test_what_init_writes_starts_and_answers(tmp_path: Path, upstream: RunningUpstream) -> None:
    headgate(
        *("init", "--yes", "--tenant", "acme", "--remote-url", upstream.base_url, "--remote-model", "scripted"),
        *("--input-usd-per-m", "1", "--output-usd-per-m", "2"),
        folder=tmp_path,
    )
    with run_gateway(tmp_path) as running:
        answer = httpx.post(
            f"{running.base_url}/chat/completions",
            headers={"authorization": f"Bearer {running.key('acme')}"},
            json={"model": "large", "messages": [{"role": "user", "content": "hello there"}]},
            trust_env=False,
            timeout=30,
        )
    assert answer.json()["choices"][0]["message"]["content"] == "answer to: hello there"
    assert answer.headers["x-headgate-deployment"] == "cloud"
