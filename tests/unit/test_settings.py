"""The operator's file: what a good one means, and one clear line for each way it can be wrong."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from core.errors import ConfigurationError
from core.money import Price
from gateway.settings.alerting import AlertWebhook
from gateway.settings.cache_settings import CacheSettings, GpuSettings
from gateway.settings.deployments import HostedDeployment, RemoteDeployment
from gateway.settings.listening import Address
from gateway.settings.operator import Settings, load_settings, on_ports
from gateway.settings.telemetry_settings import TelemetrySettings

GOOD = """
listen: 127.0.0.1:9000
tiers: {small: [tiny], large: [cloud, tiny]}
deployments:
  tiny: {recipe: bundled-small-int4}
  cloud: {backend: remote, base_url: "https://host/v1/", model: m,
          price: {input_usd_per_m: "0.15", output_usd_per_m: "0.60"}}
"""
LEAST = "tiers: {small: [tiny]}\ndeployments: {tiny: {recipe: r}}\n"


def load(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "headgate.yaml"
    file.write_text(text, encoding="utf-8")
    return load_settings(file)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = caught.value.message
    assert "\n" not in message
    assert message.startswith(str(tmp_path / "headgate.yaml"))
    return message.removeprefix(str(tmp_path / "headgate.yaml")).removeprefix(": ")


def remote(**changes: str) -> str:
    """A file whose one remote deployment has the given entries; an empty one is left out."""
    entries = {
        "backend": "remote",
        "base_url": '"https://host/v1"',
        "model": "m",
        "price": '{input_usd_per_m: "1", output_usd_per_m: "2"}',
    } | changes
    written = ", ".join(f"{name}: {value}" for name, value in entries.items() if value)
    return f"tiers: {{small: [cloud]}}\ndeployments: {{cloud: {{{written}}}}}\n"


def test_a_good_file_means_what_it_says(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.listen == Address("127.0.0.1", 9000)
    assert list(settings.tiers.items()) == [("small", ("tiny",)), ("large", ("cloud", "tiny"))]
    assert settings.deployments["tiny"] == HostedDeployment("tiny", "bundled-small-int4", None)
    assert settings.deployments["cloud"] == RemoteDeployment(
        name="cloud",
        base_url="https://host/v1",
        model="m",
        api_key_env=None,
        price=Price(150_000, 600_000),
        context_tokens=None,
        max_output_tokens=None,
    )


def test_the_least_file_gets_loopback_listeners_and_paths_beside_it(tmp_path: Path) -> None:
    settings = load(tmp_path, LEAST)
    assert (settings.listen, settings.admin_listen) == (Address("127.0.0.1", 8080), Address("127.0.0.1", 8081))
    assert settings.state_file == tmp_path / "var/headgate.db"
    assert settings.admin_key_file == tmp_path / "var/admin.key"
    assert settings.policies == tmp_path / "policies/tenants"
    assert (settings.telemetry, settings.max_body_bytes) == (TelemetrySettings(), 10 * 1024 * 1024)


def test_an_absolute_path_stays_as_it_is(tmp_path: Path) -> None:
    assert load(tmp_path, f"state: sqlite:{tmp_path}/x/y.db\n{LEAST}").state_file == tmp_path / "x/y.db"


def test_a_hosted_deployment_may_have_a_price_of_its_own(tmp_path: Path) -> None:
    text = 'tiers: {s: [t]}\ndeployments: {t: {recipe: r, price: {input_usd_per_m: "1", output_usd_per_m: "2"}}}\n'
    assert load(tmp_path, text).deployments["t"] == HostedDeployment("t", "r", Price(1_000_000, 2_000_000))


def test_the_example_in_the_repository_is_a_good_file() -> None:
    settings = load_settings(Path(__file__).parents[2] / "headgate.yaml")
    assert list(settings.tiers) == ["small", "large"]


def test_ports_from_the_command_line_replace_those_of_the_file(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert on_ports(settings, None, None) == settings
    moved = on_ports(settings, 0, 5)
    assert (moved.listen, moved.admin_listen) == (Address("127.0.0.1", 0), Address("127.0.0.1", 5))
    assert replace(moved, listen=settings.listen, admin_listen=settings.admin_listen) == settings


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not a mapping"),
        ("- a\n", "not a mapping"),
        (LEAST + "listens: 127.0.0.1:1\n", "unknown key 'listens'"),
        (LEAST + "admin: {port: 1}\n", "admin: unknown key 'port'"),
        (LEAST + "tiers: {small: [tiny]}\n", "'tiers' occurs twice"),
        ("tiers: {a: [t], a: [t]}\ndeployments: {t: {recipe: r}}\n", "'a' occurs twice"),
        ("deployments: {t: {recipe: r}}\n", "'tiers' is missing"),
        ("tiers: {s: [t]}\n", "'deployments' is missing"),
        ("tiers: {}\ndeployments: {t: {recipe: r}}\n", "tiers: there is none"),
        ("tiers: {s: []}\ndeployments: {t: {recipe: r}}\n", "tiers.s: lists no deployment"),
        ("tiers: {s: [x]}\ndeployments: {t: {recipe: r}}\n", "tiers.s: unknown deployment 'x'; use one of: t"),
        ("tiers: {s: [x]}\ndeployments: {}\n", "tiers.s: unknown deployment 'x'; use one of: none"),
        ("tiers: {auto: [t]}\ndeployments: {t: {recipe: r}}\n", "tiers.auto: the name means something else"),
        ("tiers: {t: [t]}\ndeployments: {t: {recipe: r}}\n", "tiers.t: the name means something else"),
        (
            "tiers: {s: [auto]}\ndeployments: {auto: {recipe: r}}\n",
            "deployments.auto: the name means something else",
        ),
        ("tiers: {s: [t]}\ndeployments: {t: {}}\n", "deployments.t: needs exactly one of"),
        ("tiers: {s: [t]}\ndeployments: {t: {recipe: r, backend: remote}}\n", "deployments.t: needs exactly one of"),
        ("tiers: {s: [t]}\ndeployments: {t: {backend: local}}\n", "deployments.t.backend: 'local' is not accepted"),
        (remote(price=""), "deployments.cloud.price: a deployment without a price"),
        (remote(price='{input_usd_per_m: "1"}'), "deployments.cloud.price: the key 'output_usd_per_m' is missing"),
        (remote(price='{input_usd_per_m: "-1", output_usd_per_m: "1"}'), "deployments.cloud.price.input_usd_per_m"),
        (remote(model=""), "deployments.cloud.model: the key is missing"),
        (remote(base_url=""), "deployments.cloud.base_url: the key is missing"),
        (remote(api_key="secret"), "unknown key 'api_key'; did you mean 'api_key_env'?"),
        (remote(context_tokens="0"), "deployments.cloud.context_tokens"),
        (LEAST + "max_body_bytes: 10\n", "max_body_bytes"),
        (LEAST + "state: postgres://host\n", "state: 'postgres://host' is not a store"),
        (LEAST + 'state: "sqlite:"\n', "state: 'sqlite:' is not a store"),
        (LEAST + "telemetry: {log_level: loud}\n", "telemetry.log_level: 'loud' is not accepted"),
    ],
)
def test_what_cannot_be_used_is_one_line_with_its_key(tmp_path: Path, text: str, says: str) -> None:
    assert says in refusal(tmp_path, text)


@pytest.mark.parametrize(
    "url",
    ["host/v1", "ftp://host/v1", "https://", "https://u:p@host/v1", "https://host/v1?x=1", "https://host/v1#x",
     "https://host:99999/v1", "https://host:0/v1", "https://[::1/v1", "file:///etc/passwd"],
)  # fmt: skip
def test_a_base_url_is_a_plain_http_url(tmp_path: Path, url: str) -> None:
    assert refusal(tmp_path, remote(base_url=f'"{url}"')).startswith("deployments.cloud.base_url: ")


@pytest.mark.parametrize(
    "listen", ["8080", ":8080", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:65536", "h:²"]
)
def test_an_address_is_a_host_and_a_port(tmp_path: Path, listen: str) -> None:
    assert refusal(tmp_path, f'{LEAST}listen: "{listen}"\n').startswith("listen: ")
    assert refusal(tmp_path, f'{LEAST}admin: {{listen: "{listen}"}}\n').startswith("admin.listen: ")


def test_an_ipv6_address_is_written_in_brackets(tmp_path: Path) -> None:
    assert load(tmp_path, LEAST + 'listen: "[::1]:8080"\n').listen == Address("::1", 8080)


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_settings(tmp_path / "missing.yaml")


def test_only_listed_variables_are_read_and_unset_ones_are_known_as_such(tmp_path: Path) -> None:
    file = tmp_path / "headgate.yaml"
    text = remote(base_url='"https://${HOST}/v1"') + "environment: [HOST, GONE]\n"
    file.write_text(text)
    settings = load_settings(file, {"HOST": "host.example", "SECRET": "s"})
    cloud = settings.deployments["cloud"]
    assert isinstance(cloud, RemoteDeployment)
    assert cloud.base_url == "https://host.example/v1"
    assert dict(settings.environment) == {"HOST": "host.example", "GONE": None}
    assert "environment=" not in repr(settings)


def test_a_variable_may_come_from_a_file_unless_it_is_set_itself(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from-a-file\n")
    file = tmp_path / "headgate.yaml"
    file.write_text(remote() + "environment: [HOST]\n")
    environ = {"HOST_FILE": str(tmp_path / "secret")}
    assert load_settings(file, environ).environment == {"HOST": "from-a-file"}
    assert load_settings(file, {**environ, "HOST": "set"}).environment == {"HOST": "set"}
    with pytest.raises(ConfigurationError, match=r"environment\[0\]: .*none cannot be read .*correct HOST_FILE"):
        load_settings(file, {"HOST_FILE": str(tmp_path / "none")})


def test_a_webhook_and_a_price_file_are_read(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        'prices: {m: {as_of: 2026-01-02, source: contract, input_usd_per_m: "1", output_usd_per_m: "2"}}'
    )
    alerts = "alerts: {webhook_url: https://hook.example/x/, webhook_key_env: HOOK}\n"
    settings = load(tmp_path, remote(price="table") + "prices: mine.yaml\n" + alerts)
    cloud = settings.deployments["cloud"]
    assert cloud.price == Price(1_000_000, 2_000_000, source="table:contract@2026-01-02")
    assert settings.prices_file == tmp_path / "mine.yaml"
    assert settings.alert_webhook == AlertWebhook("https://hook.example/x", "HOOK")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (remote(price="table"), "deployments.cloud.price: the price table has no 'm'"),
        (remote() + "prices: none.yaml\n", "none.yaml: cannot be read"),
        (
            "tiers: {s: [t]}\ndeployments: {t: {recipe: r, price: table}}\n",
            "deployments.t.price: a recipe names no row",
        ),
        (LEAST + "environment: HOST\n", "environment: expected array, got str; write a list"),
        (LEAST + "environment: ['$HOST']\n", "environment[0]: '$HOST' is not a variable's name; write it without $"),
        (LEAST + "listen: ${HOST}\n", "line 3: the variable 'HOST' may not be used; list it under `environment`"),
        (remote(api_key_env="K") + "environment: [A, K]\n", "environment[1]: 'K' holds a key, which files must not"),
        (LEAST + "alerts: {webhook_key_env: K}\n", "alerts: the key 'webhook_url' is missing"),
        (LEAST + "alerts: {webhook_url: ftp://x}\n", "alerts.webhook_url: 'ftp://x' is not a plain http(s) URL"),
    ],
)
def test_prices_variables_and_alerts_that_cannot_be_used_are_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    assert says in caught.value.message
    assert "\n" not in caught.value.message


def test_the_cache_keeps_its_keys_beside_the_state_unless_told_otherwise(tmp_path: Path) -> None:
    settings = load(tmp_path, LEAST + "cache: {encrypt: true, mib_per_tenant: 1, gpu: {device: 1, memory_mib: 512}}\n")
    assert settings.cache.keys == tmp_path / "var" / "cache-keys"
    assert settings.cache.max_bytes_per_tenant == 2**20
    assert settings.cache.gpu == GpuSettings(1, 512 * 2**20)
    apart = load(tmp_path, LEAST + "cache: {encrypt: true, keys: apart, gpu: {enabled: false}}\n").cache
    assert (apart.keys, apart.gpu) == (tmp_path / "apart", None)
    assert load(tmp_path, LEAST).cache == CacheSettings()


def test_a_folder_of_keys_that_nothing_uses_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path, LEAST + "cache: {keys: apart}\n").startswith("cache.keys: names a folder")


FLAT = 'price: {input_usd_per_m: 0, output_usd_per_m: 0, usd_per_request: "0.01"}'
ROUTED = """
tiers: {{small: [t]}}
routes: {{{path}: {name}}}
deployments:
  t: {{recipe: r}}
  flat: {{backend: remote, base_url: http://h/v1, model: m, {price}}}
"""


def test_a_route_may_be_mapped_to_a_deployment_with_a_flat_price(tmp_path: Path) -> None:
    settings = load(tmp_path, ROUTED.format(path="/v1/rerank", name="flat", price=FLAT))
    assert settings.routes == {"/v1/rerank": "flat"}


@pytest.mark.parametrize(
    ("path", "name", "price", "told"),
    [
        ("/v1/chat/completions", "flat", FLAT, "not a path that can be mapped"),
        ("/v1/messages/batches", "flat", FLAT, "not a path that can be mapped"),
        ("/rerank", "flat", FLAT, "not a path that can be mapped"),
        ("/v1/../x", "flat", FLAT, "not a path that can be mapped"),
        ("/v1/rerank", "t", FLAT, "no remote deployment"),
        ("/v1/rerank", "flat", "price: {input_usd_per_m: 1, output_usd_per_m: 0}", "flat price"),
    ],
)
def test_a_route_that_cannot_be_mapped_is_refused(tmp_path: Path, path: str, name: str, price: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        load(tmp_path, ROUTED.format(path=path, name=name, price=price))


def test_the_retention_of_the_logs_is_the_operators_choice(tmp_path: Path) -> None:
    entry = "telemetry: {request_log: {max_rows: 5000, days: 7}, receipts: {days: 2, max_mib: 3}}\n"
    telemetry = load(tmp_path, LEAST + entry).telemetry
    assert (telemetry.rows.max_rows, telemetry.rows.rows_days) == (5_000, 7.0)
    assert (telemetry.receipts.days, telemetry.receipts.max_bytes) == (2.0, 3 << 20)
    assert "telemetry.request_log.max_rows" in refusal(tmp_path, LEAST + "telemetry: {request_log: {max_rows: 0}}\n")


def test_an_hour_of_the_machine_has_a_price_above_zero(tmp_path: Path) -> None:
    entry = 'telemetry: {machine_hourly_usd: "%s"}\n'
    assert load(tmp_path, LEAST + entry % "0.08").telemetry.machine_hourly_usd == Decimal("0.08")
    assert "telemetry.machine_hourly_usd" in refusal(tmp_path, LEAST + entry % "0")
