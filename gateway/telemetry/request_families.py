"""The families of metrics that finished traces and the gateway's own state count in; labels come from configuration."""

from gateway.telemetry.families import Family

TTFT_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10)
TOTAL_S = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 20, 30, 60, 120)
OVERHEAD_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
TPOT_S = (0.002, 0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.5, 1)
LAG_S = (0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1)
REQUESTS = Family(
    "counter", "requests", "Finished requests; those of clients alone.", ("tenant", "status", "cache", "tier")
)
SHADOWS = Family(
    "counter",
    "shadow_requests",
    "What the gateway asked by itself, such as `cache`; it counts in tokens, cost and attempts, nowhere else.",
    ("tenant", "purpose", "status"),
)
REFUSALS = Family("counter", "refusals", "Requests refused before a tenant or a body was known.", ("code",))
TOKENS = Family("counter", "tokens", "Input and output tokens.", ("tenant", "tier", "kind"))
COST = Family("counter", "cost_usd", "Settled cost in USD.", ("tenant", "tier"))
SAVED = Family(
    "counter", "saved_usd", "What the answers had cost in USD that the cache served again.", ("tenant", "tier")
)
BASELINE = Family(
    "counter", "baseline_usd", "What the same answers cost at the dearest tier without a cache.", ("tenant", "source")
)
ROUTES = Family(
    "counter", "route_decisions", "Answers by tier and the plan's binding reason, `cache` for hits.", ("tier", "reason")
)
ATTEMPTS = Family("counter", "attempts", "Tries, by how they ended.", ("deployment", "outcome"))
OTHER_MODEL = Family(
    "counter", "other_model", "Answers of another model than was asked; alert on any.", ("deployment",)
)
RESCUES = Family("counter", "rescues", "Fallbacks, retries and hedges by outcome.", ("kind", "outcome"))
OUTRUN_COST = Family(
    "counter",
    "outrun_cost_usd",
    "What attempts cost that a hedge outran, or the hedge itself where it lost.",
    ("tier",),
)
SHEDS = Family(
    "counter",
    "sheds",
    "Requests refused for want of capacity: `late`, `full`, `evicted`, `waited`, `policy`.",
    ("reason",),
)
JUDGED = Family(
    "counter",
    "sla_judged",
    "Requests that had an SLA to keep, were not refused and whose client stayed.",
    ("tenant", "tier"),
)
MISSED = Family("counter", "sla_missed", "Judged requests that were late, cut or failed.", ("tenant", "tier"))
VIOLATIONS = Family("counter", "sla_violations", "Requests outside their SLA.", ("tenant", "tier"))
TTFT = Family(
    "histogram",
    "ttft_seconds",
    "Request received to first token sent.",
    ("tier",),
    bounds_s=TTFT_S,
    has_sla_limits=True,
)
TOTAL = Family(
    "histogram",
    "request_seconds",
    "Request received to answer complete.",
    ("tier",),
    bounds_s=TOTAL_S,
    has_sla_limits=True,
)
TPOT = Family(
    "histogram", "tpot_seconds", "Mean time between the output tokens of a stream.", ("tier",), bounds_s=TPOT_S
)
OVERHEAD = Family("histogram", "overhead_seconds", "Time in the gateway itself.", ("tier",), bounds_s=OVERHEAD_S)
QUEUED = Family("histogram", "queue_seconds", "Wait for a slot of a deployment.", ("tier",), bounds_s=TTFT_S)
WAITING = Family("gauge", "queue_waiting", "Requests that wait for a slot.")
IN_FLIGHT = Family("gauge", "in_flight", "Attempts under way.", ("deployment",))
EJECTIONS = Family("gauge", "ejections", "How often the breaker opened.", ("deployment",))
DEPLOYMENT_READY = Family("gauge", "deployment_ready", "Whether a deployment is sent requests.", ("deployment",))
BUDGET_ALERTS = Family(
    "counter", "budget_alerts", "Budgets that passed one of their percentages.", ("tenant", "percent")
)
SHADOW_PRICE = Family(
    "gauge",
    "shadow_price_per_usd",
    "What pacing asks of a dearer tier, as of the last plan; 0 while the budget is not ahead of its pace.",
    ("tenant",),
)
STORE_AWAY = Family("gauge", "store_away", "Whether the budget store is away.")
TIER_READY = Family("gauge", "tier_ready", "Whether a tier can answer.", ("tier",))
LOOP_LAG = Family("histogram", "event_loop_lag_seconds", "How late the event loop wakes.", bounds_s=LAG_S)
FAMILIES = (
    REQUESTS,
    SHADOWS,
    REFUSALS,
    TOKENS,
    COST,
    SAVED,
    BASELINE,
    ROUTES,
    ATTEMPTS,
    OTHER_MODEL,
    RESCUES,
    OUTRUN_COST,
    SHEDS,
    JUDGED,
    MISSED,
    VIOLATIONS,
    TTFT,
    TOTAL,
    TPOT,
    OVERHEAD,
    QUEUED,
    WAITING,
    IN_FLIGHT,
    EJECTIONS,
    DEPLOYMENT_READY,
    BUDGET_ALERTS,
    SHADOW_PRICE,
    STORE_AWAY,
    TIER_READY,
    LOOP_LAG,
)
