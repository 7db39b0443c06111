"""Names of spans, attributes and metrics: OpenTelemetry's for generative AI, and our own under `headgate.*`.

The conventions are in development: v1.41 is what tracing backends know, and the set on the main branch of
open-telemetry/semantic-conventions-genai renames the client's metrics. So the names are kept here, both sets of them;
the attributes of spans are the same in both. `gen_ai.usage.cost.*` is the proposal of that repository's request 443.
"""

from dataclasses import dataclass

from gateway.settings.telemetry_settings import Semconv

OPERATION_NAME = "gen_ai.operation.name"
PROVIDER_NAME = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
REQUEST_MAX_TOKENS = "gen_ai.request.max_tokens"
RESPONSE_MODEL = "gen_ai.response.model"
FINISH_REASONS = "gen_ai.response.finish_reasons"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHE_READ_TOKENS = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS = "gen_ai.usage.reasoning.output_tokens"
CONVERSATION_ID = "gen_ai.conversation.id"
INPUT_MESSAGES = "gen_ai.input.messages"
OUTPUT_MESSAGES = "gen_ai.output.messages"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - not a secret
COST_AMOUNT = "gen_ai.usage.cost.amount"
COST_CURRENCY = "gen_ai.usage.cost.currency"
COST_SOURCE = "gen_ai.usage.cost.source"
ERROR_TYPE = "error.type"
HTTP_STATUS = "http.response.status_code"

TENANT = "headgate.tenant.id"
REQUEST_ID = "headgate.request.id"
POLICY_VERSION = "headgate.policy.version"
CACHE_OUTCOME = "headgate.cache.outcome"
CACHE_DETAIL = "headgate.cache.detail"
CACHE_SIMILARITY = "headgate.cache.similarity"
CACHE_AGE_S = "headgate.cache.entry_age_s"
ROUTE_TIER = "headgate.route.tier"
ROUTE_DEPLOYMENT = "headgate.route.deployment"
ROUTE_REASON = "headgate.route.reason"
ROUTE_SCORE = "headgate.route.score"
ROUTE_CANDIDATES = "headgate.route.candidates"
ROUTE_DEGRADED_FROM = "headgate.route.degraded_from"
SLA_TTFT_MS = "headgate.sla.ttft_budget_ms"
SLA_TOTAL_MS = "headgate.sla.total_budget_ms"
SLA_VIOLATED = "headgate.sla.violated"
COST_USD = "headgate.cost.usd"
COST_BASELINE_USD = "headgate.cost.baseline_usd"
COST_SAVED_USD = "headgate.cost.saved_usd"
BUDGET_RESERVED_USD = "headgate.budget.reserved_usd"
BUDGET_REMAINING_USD = "headgate.budget.remaining_usd"
ATTEMPT_N = "headgate.attempt.n"
ATTEMPT_TIER = "headgate.attempt.tier"
ATTEMPT_OUTCOME = "headgate.attempt.outcome"
ATTEMPT_KIND = "headgate.attempt.kind"
ATTEMPT_HEDGED = "headgate.attempt.hedged"
ATTEMPT_WON = "headgate.attempt.won"

PROVIDER = "headgate"
EVENT_CACHE = "headgate.cache"
EVENT_DECISION = "headgate.decision"
EVENT_BUDGET = "headgate.budget"

_OPERATIONS = {"/v1/completions": "text_completion", "/v1/embeddings": "embeddings"}


def operation_of(path: str) -> str:
    """Return `gen_ai.operation.name` for a route; conversations in any dialect are `chat`."""
    return _OPERATIONS.get(path, "chat")


@dataclass(frozen=True, slots=True)
class MetricNames:
    """Names of the client's metrics; a set has either one histogram of tokens, or a counter for each kind."""

    duration: str
    time_to_first_chunk: str
    time_per_output_chunk: str
    token_usage: str | None
    input_tokens: str | None
    output_tokens: str | None


_V1_41 = MetricNames(
    duration="gen_ai.client.operation.duration",
    time_to_first_chunk="gen_ai.client.operation.time_to_first_chunk",
    time_per_output_chunk="gen_ai.client.operation.time_per_output_chunk",
    token_usage="gen_ai.client.token.usage",  # noqa: S106 - not a secret
    input_tokens=None,
    output_tokens=None,
)
_LATEST = MetricNames(
    duration="gen_ai.client.inference.duration",
    time_to_first_chunk="gen_ai.client.inference.time_to_first_chunk",
    time_per_output_chunk="gen_ai.client.inference.time_per_output_chunk",
    token_usage=None,
    input_tokens="gen_ai.client.inference.usage.input_tokens",
    output_tokens="gen_ai.client.inference.usage.output_tokens",
)
NAMES: dict[Semconv, MetricNames] = {"v1.41": _V1_41, "latest": _LATEST}
SERVER_DURATION = "gen_ai.server.request.duration"
SERVER_TTFT = "gen_ai.server.time_to_first_token"
