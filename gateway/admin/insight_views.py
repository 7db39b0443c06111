"""What `/admin/overview`, `/admin/requests` and `/admin/deployments` answer with, made from what the log tells."""

from collections.abc import Iterable
from dataclasses import asdict

import msgspec
from msgspec import Struct

from backends.deployment import Deployment
from core.plan import RegistrySnapshot
from gateway.telemetry.log_reader import Group, LatencyPoint, LoggedRequest, Percentiles, Point, Window
from gateway.telemetry.rollup import Sums


class WindowView(Struct, frozen=True):
    """Unix seconds; `span_s` is one step of the series."""

    start_s: int
    end_s: int
    span_s: int


class SumsView(Struct, frozen=True):
    """Sums under labels; money in nano-USD."""

    labels: list[str]
    requests: int
    answered: int
    failed: int
    refused: int
    late: int
    attempts: int
    input_tokens: int
    output_tokens: int
    cost_nano_usd: int
    saved_nano_usd: int
    baseline_nano_usd: int


class PercentilesView(Struct, frozen=True):
    """Milliseconds of answered requests by name; `error_ratio` is 0 where they are exact."""

    served_by: str
    ttft_ms: dict[str, float | None]
    total_ms: dict[str, float | None]
    error_ratio: float


class PointView(Struct, frozen=True):
    """One step of the series for one tier, or for `cache`."""

    starts_at_s: int
    served_by: str
    requests: int
    late: int
    failed: int
    cost_nano_usd: int
    ttft_p95_ms: float | None
    total_p95_ms: float | None


class Overview(Struct, frozen=True):
    """A window at a glance; `baseline` is what the same answers cost at the dearest tier without a cache."""

    window: WindowView
    total: SumsView
    tiers: list[SumsView]
    cache: list[SumsView]
    reasons: list[SumsView]
    tenants: list[SumsView]
    percentiles: list[PercentilesView]
    series: list[PointView]
    readiness: dict[str, str]


class RequestView(Struct, frozen=True):
    """One row of the log; times in milliseconds, money in nano-USD."""

    id: int
    columns: dict[str, str | int | float | None]
    attempts: list[dict[str, str | int | float | None]]


class RequestPage(Struct, frozen=True):
    """Rows, newest first; go on with `before=searched_to`, unless it is null."""

    requests: list[RequestView]
    searched_to: int | None


class ForecastView(Struct, frozen=True):
    """What one more request may expect, in milliseconds."""

    queue_ms: float
    base_ms: float
    ms_per_input_token: float
    ms_per_output_token: float


class DeploymentView(Struct, frozen=True):
    """One deployment as the planner sees it now; `forecast` is null until it has answered often enough.

    `in_flight` attempts are under way. Five `faults_in_a_row` open its breaker; `ejections` counts how often that was.
    """

    name: str
    model: str
    tiers: list[str]
    hosted: bool
    readiness: str
    retry_after_s: float
    in_flight: int
    forecast: ForecastView | None
    faults_in_a_row: int
    ejections: int


class DeploymentList(Struct, frozen=True):
    """All deployments, in the order of the tiers."""

    deployments: list[DeploymentView]


def window_view(window: Window) -> WindowView:
    """Return a window as it is shown."""
    return WindowView(window.start_s, window.end_s, window.span_s)


def sums_views(groups: Iterable[Group]) -> list[SumsView]:
    """Return groups in their order."""
    return [sums_view(group.labels, group.sums) for group in groups]


def sums_view(labels: tuple[str, ...], sums: Sums) -> SumsView:
    """Return sums under labels."""
    return SumsView(list(labels), **asdict(sums))


def percentiles_view(one: Percentiles) -> PercentilesView:
    """Return percentiles of one who served."""
    return PercentilesView(one.served_by, dict(one.ttft_ms), dict(one.total_ms), one.error_ratio)


def point_view(point: Point, latency: LatencyPoint | None) -> PointView:
    """Return one step of a series; without `latency` nothing was answered in it."""
    return PointView(
        starts_at_s=point.starts_at_s,
        served_by=point.served_by,
        requests=point.sums.requests,
        late=point.sums.late,
        failed=point.sums.failed,
        cost_nano_usd=point.sums.cost_nano_usd,
        ttft_p95_ms=None if latency is None else latency.ttft_ms,
        total_p95_ms=None if latency is None else latency.total_ms,
    )


def request_view(row: LoggedRequest) -> RequestView:
    """Return one row with its attempts by name."""
    return RequestView(row.id, dict(row.columns), [attempt.by_name() for attempt in row.attempts])


def deployment_view(snapshot: RegistrySnapshot, deployment: Deployment) -> DeploymentView:
    """Return a deployment as the planner sees it."""
    seen = snapshot.deployments[deployment.name]
    return DeploymentView(
        name=seen.name,
        model=seen.model,
        tiers=[tier for tier, names in snapshot.tiers.items() if seen.name in names],
        hosted=deployment.local,
        readiness=seen.readiness.value,
        retry_after_s=seen.retry_after_s,
        in_flight=deployment.latency.in_flight,
        forecast=None if seen.forecast is None else ForecastView(**msgspec.structs.asdict(seen.forecast)),
        faults_in_a_row=deployment.health.failures_in_a_row,
        ejections=deployment.health.ejections,
    )
