"""The reference of all metrics: `python -m gateway.telemetry.reference > docs/metrics.md`."""

import sys

from gateway.telemetry import budget_metrics, engine_metrics, engine_work, request_families, state_metrics
from gateway.telemetry.families import Family

HEAD = """# Metrics

`GET /metrics` on the admin listener, with an administrator's key. Values of labels come from configuration: tenants
(`other` for one without a policy), tiers, deployments, engines; the rest from short lists in the program. Money is in
USD, time in seconds. Histograms have the SLA limits of the policies among their bounds, as they were when the gateway
started. How to use them: [observability.md](observability.md). Written by `python -m gateway.telemetry.reference`.

| metric | kind | labels | meaning |
|---|---|---|---|
"""
TAIL = """
Of a gateway with several workers, every series has a further label `worker`, except budgets, SLA limits, engines and
GPUs, which are one over all; sums and rates over `worker` are the gateway's. `headgate_worker_up` says who answered.

Besides these, `process_*` of the Prometheus client: CPU seconds, resident memory, open files of the gateway's process.
"""


def families() -> list[Family]:
    """Return every family that the gateway shows, by name."""
    parts = (request_families, engine_metrics, engine_work, budget_metrics, state_metrics)
    return sorted((family for part in parts for family in part.FAMILIES), key=lambda family: family.name)


def reference() -> str:
    """Return the whole page."""
    return HEAD + "".join(_row(family) for family in families()) + TAIL


def _row(family: Family) -> str:
    labels = ", ".join(family.labels)
    return f"| `{family.full_name}` | {family.kind} | {labels} | {family.text[:1].lower()}{family.text[1:-1]} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
