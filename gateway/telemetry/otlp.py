"""The exporters of OTLP as the operator chose them, each imported only when it is needed."""

from opentelemetry.sdk.metrics.export import MetricExporter
from opentelemetry.sdk.trace.export import SpanExporter

from core.errors import ConfigurationError
from gateway.settings.telemetry_settings import TelemetrySettings


def span_exporter(settings: TelemetrySettings) -> SpanExporter:
    """Return what sends spans; what the settings leave open, the exporter takes from `OTEL_EXPORTER_OTLP_*`.

    Raises:
        ConfigurationError: gRPC is asked for and not installed.
    """
    if settings.protocol == "grpc":
        try:
            from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc
        except ImportError as problem:
            raise _missing() from problem
        return Grpc(endpoint=settings.traces_endpoint)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter(endpoint=settings.traces_endpoint)


def metric_exporter(settings: TelemetrySettings) -> MetricExporter:
    """Return what sends metrics, as `span_exporter`.

    Raises:
        ConfigurationError: gRPC is asked for and not installed.
    """
    if settings.protocol == "grpc":
        try:
            from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as Grpc
        except ImportError as problem:
            raise _missing() from problem
        return Grpc(endpoint=settings.metrics_endpoint)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter(endpoint=settings.metrics_endpoint)


def _missing() -> ConfigurationError:
    mend = "pip install 'headgate[grpc]', or use `otlp_protocol: http/protobuf`"
    return ConfigurationError("telemetry", "otlp_protocol", "the gRPC exporter is not installed", mend)
