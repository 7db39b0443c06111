"""The operator's choices about logs and what is exported by OTLP; the variables of OpenTelemetry are honoured.

`OTEL_EXPORTER_OTLP_*` say what the file leaves out (the exporters read them themselves), above all the headers, since
secrets never stand in YAML. `OTEL_SDK_DISABLED=true` switches all exporting off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Literal
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from core.errors import ConfigurationError
from core.money import nano_usd
from gateway.settings.retention import ReceiptRetention, Retention
from gateway.settings.urls import plain_url
from policies.measured_price import check_hourly_usd
from policies.schema import says

Semconv = Literal["v1.41", "latest"]
"""Which of two sets of names OpenTelemetry's metrics of generative AI bear."""
Protocol = Literal["http/protobuf", "grpc"]
PROTOCOLS: dict[str, Protocol] = {"http/protobuf": "http/protobuf", "grpc": "grpc"}
Days = Annotated[float, Meta(gt=0, le=3_650)]
MaxRows = Annotated[int, Meta(ge=1_000, le=100_000_000)]
MaxMib = Annotated[int, Meta(ge=1, le=1 << 20)]
Share = Annotated[float, Meta(ge=0, le=1)]
LATEST = "gen_ai_latest_experimental"
TRACES = "/v1/traces"
METRICS = "/v1/metrics"


class RequestLogEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """How long rows of the request log are kept; sums per hour and day stay longer."""

    max_rows: Annotated[MaxRows, says("Rows that are kept; the oldest go first.")] = 1_000_000
    days: Annotated[Days, says("Rows older than this go.")] = 30.0


class ReceiptsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """How long decision records are kept."""

    days: Annotated[Days, says("Records older than this go.")] = 30.0
    max_mib: Annotated[MaxMib, says("MiB, compressed, that are kept; the oldest go first.")] = 1024


class TelemetryEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Logs, and where spans and metrics of generative AI go; without an endpoint none are made."""

    otlp_endpoint: Annotated[str | None, says("Where spans are sent by OTLP; without one none are made.")] = None
    otlp_protocol: Annotated[Protocol | None, says("How they are sent; `http/protobuf` unless said otherwise.")] = None
    otlp_metrics: Annotated[bool, says("Send metrics of generative AI there too.")] = False
    genai_semconv: Annotated[Semconv | None, says("Whose names these metrics bear: `v1.41` (default), `latest`.")] = (
        None
    )
    sample_ratio: Annotated[Share, says("Share of traces that are kept; errors, SLA misses, dear requests always.")] = (
        1.0
    )
    dear_usd: Annotated[Decimal, says("A request that cost at least so much is dear.")] = Decimal("0.05")
    machine_hourly_usd: Annotated[
        Decimal | None, says("An hour of this machine, for what encoding costs; a recipe's `hourly_usd` without it.")
    ] = None
    log_level: Annotated[Literal["debug", "info", "warning", "error"], says("The least level that is logged.")] = "info"
    request_log: Annotated[RequestLogEntry, says("Retention of the request log.")] = RequestLogEntry()
    receipts: Annotated[ReceiptsEntry, says("Retention of decision records.")] = ReceiptsEntry()


@dataclass(frozen=True, slots=True)
class TelemetrySettings:
    """What is logged and exported.

    Attributes:
        exports: whether there is anywhere to send spans to.
        traces_endpoint: the file's, None where the environment's variables say it; `metrics_endpoint` likewise.
    """

    log_level: str = "info"
    exports: bool = False
    protocol: Protocol = "http/protobuf"
    traces_endpoint: str | None = None
    metrics_endpoint: str | None = None
    exports_metrics: bool = False
    semconv: Semconv = "v1.41"
    sample_ratio: float = 1.0
    dear_nano_usd: int = 50_000_000
    machine_hourly_usd: Decimal | None = None
    rows: Retention = field(default_factory=Retention)
    receipts: ReceiptRetention = field(default_factory=ReceiptRetention)


def telemetry_settings(entry: TelemetryEntry, file: str, environ: Mapping[str, str]) -> TelemetrySettings:
    """Return what `entry` of `file` and the environment mean together; the file wins.

    Raises:
        ConfigurationError: an endpoint, a protocol or an amount that cannot be used.
    """
    protocol = entry.otlp_protocol or _protocol(environ)
    is_disabled = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    traces, metrics = _endpoints(entry.otlp_endpoint, protocol, file)
    if entry.machine_hourly_usd is not None:
        check_hourly_usd(entry.machine_hourly_usd, file, "telemetry.machine_hourly_usd")
    variables = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    exports = not is_disabled and (traces is not None or any(environ.get(name) for name in variables))
    return TelemetrySettings(
        log_level=entry.log_level,
        exports=exports,
        protocol=protocol,
        traces_endpoint=traces,
        metrics_endpoint=metrics,
        exports_metrics=exports and entry.otlp_metrics,
        semconv=entry.genai_semconv or _semconv(environ),
        sample_ratio=entry.sample_ratio,
        dear_nano_usd=_dear(entry.dear_usd, file),
        machine_hourly_usd=entry.machine_hourly_usd,
        rows=Retention(max_rows=entry.request_log.max_rows, rows_days=entry.request_log.days),
        receipts=ReceiptRetention(entry.receipts.days, entry.receipts.max_mib << 20),
    )


def _endpoints(written: str | None, protocol: Protocol, file: str) -> tuple[str | None, str | None]:
    """Return where traces and metrics go: over HTTP each has a path below the collector's, over gRPC there is none."""
    if written is None:
        return None, None
    url = plain_url(written, file, "telemetry.otlp_endpoint", "http://127.0.0.1:4318")
    if protocol == "grpc":
        if urlsplit(url).path:
            mend = "write http://HOST:4317, or use `otlp_protocol: http/protobuf`"
            raise ConfigurationError(file, "telemetry.otlp_endpoint", "a gRPC endpoint has no path", mend)
        return url, url
    base = url.removesuffix(TRACES)
    return base + TRACES, base + METRICS


def _protocol(environ: Mapping[str, str]) -> Protocol:
    """Return the protocol that the environment asks for.

    Raises:
        ConfigurationError: it is none of ours.
    """
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        value = environ.get(name, "").strip()
        if value and value not in PROTOCOLS:
            mend = "use http/protobuf or grpc"
            raise ConfigurationError("environment", name, f"{value[:40]!r} is not supported", mend)
        if value:
            return PROTOCOLS[value]
    return "http/protobuf"


def _semconv(environ: Mapping[str, str]) -> Semconv:
    opted = environ.get("OTEL_SEMCONV_STABILITY_OPT_IN", "").split(",")
    return "latest" if LATEST in (one.strip() for one in opted) else "v1.41"


def _dear(usd: Decimal, file: str) -> int:
    """Return the amount in nano-USD.

    Raises:
        ConfigurationError: it is not above 0 or has too many decimal places.
    """
    try:
        dear_nano_usd = nano_usd(usd)
    except ValueError as problem:
        mend = 'write an amount such as "0.05"'
        raise ConfigurationError(file, "telemetry.dear_usd", str(problem), mend) from problem
    if dear_nano_usd <= 0:
        raise ConfigurationError(file, "telemetry.dear_usd", "is not above 0", 'write an amount such as "0.05"')
    return dear_nano_usd
