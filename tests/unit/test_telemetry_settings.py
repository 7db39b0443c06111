"""What is exported, where to, and under whose names: the file wins over the environment."""

from decimal import Decimal
from typing import Any

import pytest

from core.errors import ConfigurationError
from gateway.settings.telemetry_settings import TelemetryEntry, TelemetrySettings, telemetry_settings

HTTP = "http://127.0.0.1:4318"


def settings(environ: dict[str, str] | None = None, **entry: Any) -> TelemetrySettings:
    return telemetry_settings(TelemetryEntry(**entry), "headgate.yaml", environ or {})


def test_nothing_is_exported_without_an_endpoint() -> None:
    assert settings() == TelemetrySettings()
    assert settings(otlp_metrics=True).exports_metrics is False


@pytest.mark.parametrize("written", [HTTP, HTTP + "/", HTTP + "/v1/traces"])
def test_the_paths_of_http_are_added(written: str) -> None:
    found = settings(otlp_endpoint=written)
    assert (found.exports, found.traces_endpoint, found.metrics_endpoint) == (
        True,
        HTTP + "/v1/traces",
        HTTP + "/v1/metrics",
    )


def test_the_environments_endpoint_is_left_to_the_exporter() -> None:
    found = settings({"OTEL_EXPORTER_OTLP_ENDPOINT": HTTP, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert (found.exports, found.traces_endpoint, found.protocol) == (True, None, "grpc")


def test_opentelemetry_can_be_disabled_by_its_variable() -> None:
    assert not settings({"OTEL_SDK_DISABLED": "true"}, otlp_endpoint=HTTP).exports


def test_the_renamed_set_is_chosen_by_the_file_or_by_opting_in() -> None:
    opted = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http, gen_ai_latest_experimental"}
    assert settings(opted).semconv == "latest"
    assert settings(opted, genai_semconv="v1.41").semconv == "v1.41"
    assert settings(genai_semconv="latest").semconv == "latest"


@pytest.mark.parametrize(
    ("environ", "entry", "problem"),
    [
        ({}, {"otlp_endpoint": "127.0.0.1:4318"}, "telemetry.otlp_endpoint: '127.0.0.1:4318' is not a plain http"),
        ({}, {"otlp_endpoint": HTTP + "/v1/traces", "otlp_protocol": "grpc"}, "a gRPC endpoint has no path"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, {}, "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is not supported"),
        ({}, {"dear_usd": Decimal(0)}, "telemetry.dear_usd: is not above 0"),
    ],
)
def test_what_cannot_be_used_is_one_line(environ: dict[str, str], entry: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        settings(environ, **entry)
