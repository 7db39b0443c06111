"""How the request log lies on disk: a row per request, and by minute, hour and day sums (`rollup`), sketches and more.

Within 400 bytes a row: attempts are arrays without names, and a request is found by the last 16 digits of its id.
Numbers of nano-USD and milliseconds are as in `core.trace`.
"""

import msgspec

from core.trace import Attempt, AttemptKind, RequestTrace, Trial

_FIRST = """
CREATE TABLE requests (
  request_id TEXT PRIMARY KEY, received_at_ms INTEGER NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
  path TEXT NOT NULL, model_alias TEXT NOT NULL, stream INTEGER NOT NULL, status INTEGER NOT NULL, error_code TEXT,
  cache TEXT NOT NULL, cache_detail TEXT NOT NULL, similarity REAL, tier TEXT, deployment TEXT, reason TEXT,
  degraded_from TEXT, p_small_suffices REAL, policy_version TEXT, input_tokens INTEGER, output_tokens INTEGER,
  cost_nano_usd INTEGER NOT NULL, saved_nano_usd INTEGER NOT NULL, reserved_nano_usd INTEGER NOT NULL,
  ttft_ms REAL, total_ms REAL NOT NULL, overhead_ms REAL NOT NULL, sla_violated INTEGER NOT NULL, attempts TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX requests_by_time ON requests (received_at_ms);
"""
_COLUMNS = """
  request_id, received_at_ms, tenant, key_id, path, model_alias, stream, status, error_code, cache, cache_detail,
  similarity, tier, deployment, reason, degraded_from, p_small_suffices, policy_version, input_tokens, output_tokens,
  cost_nano_usd, saved_nano_usd, reserved_nano_usd, ttft_ms, total_ms, overhead_ms, sla_violated, attempts
"""
_SECOND = f"""
ALTER TABLE requests RENAME TO first_requests;
CREATE TABLE requests (
  id INTEGER PRIMARY KEY,
  request_id TEXT NOT NULL, received_at_ms INTEGER NOT NULL, tenant TEXT NOT NULL, key_id TEXT NOT NULL,
  path TEXT NOT NULL, model_alias TEXT NOT NULL, stream INTEGER NOT NULL, status INTEGER NOT NULL, error_code TEXT,
  cache TEXT NOT NULL, cache_detail TEXT NOT NULL, similarity REAL, tier TEXT, deployment TEXT, reason TEXT,
  degraded_from TEXT, p_small_suffices REAL, policy_version TEXT, input_tokens INTEGER, output_tokens INTEGER,
  cost_nano_usd INTEGER NOT NULL, saved_nano_usd INTEGER NOT NULL, reserved_nano_usd INTEGER NOT NULL,
  ttft_ms REAL, total_ms REAL NOT NULL, overhead_ms REAL NOT NULL, sla_violated INTEGER NOT NULL,
  attempts TEXT NOT NULL, baseline_nano_usd INTEGER
);
INSERT INTO requests ({_COLUMNS})
SELECT
  request_id, received_at_ms, tenant, key_id, path, model_alias, stream, status, error_code, cache, cache_detail,
  similarity, tier, deployment, reason, degraded_from, p_small_suffices, policy_version, input_tokens, output_tokens,
  cost_nano_usd, saved_nano_usd, reserved_nano_usd, ttft_ms, total_ms, overhead_ms, sla_violated,
  (SELECT json_group_array(json_array(
     value ->> 'n', value ->> 'deployment', value ->> 'tier', value ->> 'model', value ->> 'started_ms',
     value ->> 'first_byte_ms', value ->> 'ended_ms', value ->> 'outcome', value ->> 'http_status',
     value ->> '$.usage.input_tokens', value ->> '$.usage.output_tokens', value ->> 'usage_source',
     value ->> 'cost_nano_usd', value ->> 'error')) FROM json_each(attempts))
FROM first_requests ORDER BY received_at_ms;
DROP TABLE first_requests;
CREATE UNIQUE INDEX requests_by_id ON requests (substr(request_id, -16));
CREATE INDEX requests_by_time ON requests (received_at_ms);
CREATE INDEX requests_by_tenant ON requests (tenant);
CREATE TABLE rollup (
  span_s INTEGER NOT NULL, starts_at_s INTEGER NOT NULL, tenant TEXT NOT NULL, tier TEXT NOT NULL,
  deployment TEXT NOT NULL, cache TEXT NOT NULL, reason TEXT NOT NULL,
  requests INTEGER NOT NULL, answered INTEGER NOT NULL, failed INTEGER NOT NULL, refused INTEGER NOT NULL,
  late INTEGER NOT NULL, attempts INTEGER NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
  cost_nano_usd INTEGER NOT NULL, saved_nano_usd INTEGER NOT NULL, baseline_nano_usd INTEGER NOT NULL,
  PRIMARY KEY (span_s, starts_at_s, tenant, tier, deployment, cache, reason)
) WITHOUT ROWID;
CREATE TABLE latencies (
  span_s INTEGER NOT NULL, starts_at_s INTEGER NOT NULL, tenant TEXT NOT NULL, served_by TEXT NOT NULL,
  ttft BLOB, total BLOB,
  PRIMARY KEY (span_s, starts_at_s, tenant, served_by)
) WITHOUT ROWID;
"""  # noqa: S608 - our own column names
_THIRD = """
ALTER TABLE requests ADD COLUMN trial INTEGER;
CREATE TABLE sources (
  span_s INTEGER NOT NULL, starts_at_s INTEGER NOT NULL, tenant TEXT NOT NULL, source TEXT NOT NULL,
  requests INTEGER NOT NULL, saved_nano_usd INTEGER NOT NULL,
  PRIMARY KEY (span_s, starts_at_s, tenant, source)
) WITHOUT ROWID;
CREATE TABLE trials (
  span_s INTEGER NOT NULL, starts_at_s INTEGER NOT NULL, tenant TEXT NOT NULL, per_10k INTEGER NOT NULL,
  held_out INTEGER NOT NULL, requests INTEGER NOT NULL, cost_nano_usd INTEGER NOT NULL, cost_squared REAL NOT NULL,
  baseline_nano_usd INTEGER NOT NULL, late INTEGER NOT NULL,
  PRIMARY KEY (span_s, starts_at_s, tenant, per_10k, held_out)
) WITHOUT ROWID;
"""
_FOURTH = """
CREATE TABLE attainment (
  span_s INTEGER NOT NULL, starts_at_s INTEGER NOT NULL, tenant TEXT NOT NULL, tier TEXT NOT NULL,
  judged INTEGER NOT NULL, missed INTEGER NOT NULL, retries INTEGER NOT NULL, hedges INTEGER NOT NULL,
  fallbacks INTEGER NOT NULL, retry_nano_usd INTEGER NOT NULL, hedge_nano_usd INTEGER NOT NULL,
  fallback_nano_usd INTEGER NOT NULL, tpot BLOB,
  PRIMARY KEY (span_s, starts_at_s, tenant, tier)
) WITHOUT ROWID;
"""
_FIFTH = """
CREATE TABLE folded (span_s INTEGER PRIMARY KEY, until_s INTEGER NOT NULL);
INSERT INTO folded SELECT span_s, max(starts_at_s) + span_s FROM rollup WHERE span_s > 60 GROUP BY span_s;
"""
MIGRATIONS = (_FIRST, _SECOND, _THIRD, _FOURTH, _FIFTH)
INSERT = f"INSERT OR IGNORE INTO requests ({_COLUMNS}, baseline_nano_usd, trial) VALUES ({','.join('?' * 30)})"  # noqa: S608
Row = tuple[str | int | float | None, ...]


class LoggedAttempt(msgspec.Struct, frozen=True, array_like=True):
    """One attempt as the log keeps it: an array in this order, milliseconds since the request was received."""

    n: int
    deployment: str
    tier: str
    model: str
    started_ms: float
    first_byte_ms: float | None
    ended_ms: float
    outcome: str
    http_status: int | None
    input_tokens: int | None
    output_tokens: int | None
    usage_source: str
    cost_nano_usd: int
    error: str | None = None
    other_model: str | None = None
    kind: str = "first"

    def by_name(self) -> dict[str, str | int | float | None]:
        """Return the fields by their names."""
        return {name: getattr(self, name) for name in self.__struct_fields__}


_encoder = msgspec.json.Encoder()
_USUAL = (None, None, AttemptKind.FIRST)
attempts_decoder = msgspec.json.Decoder(list[LoggedAttempt])


def row_of(trace: RequestTrace) -> Row:
    """Return the values of a request's row in the order of `INSERT`; of plain types, others cost SQLite's adapters."""
    usage = trace.usage
    return (
        trace.request_id,
        int(trace.received_at.timestamp() * 1000),
        trace.tenant,
        trace.key_id,
        trace.path,
        trace.model_alias[:200],
        int(trace.stream),
        trace.status,
        trace.error_code,
        trace.cache,
        trace.cache_detail,
        trace.similarity,
        trace.tier,
        trace.deployment,
        trace.reason,
        trace.degraded_from,
        trace.p_small_suffices,
        trace.policy_version,
        None if usage is None else usage.input_tokens,
        None if usage is None else usage.output_tokens,
        trace.cost_nano_usd,
        trace.saved_nano_usd,
        trace.reserved_nano_usd,
        trace.ttft_ms,
        trace.total_ms,
        trace.overhead_ms,
        int(trace.sla_violated),
        _encoder.encode([_logged(attempt) for attempt in trace.attempts]).decode(),
        trace.baseline_nano_usd,
        _trial(trace.trial),
    )


def _trial(trial: Trial | None) -> int | None:
    """Return how many of 10,000 are held out, negative for a request that is not, None where none may be."""
    if trial is None:
        return None
    return trial.per_10k if trial.held_out else -trial.per_10k


def _logged(attempt: Attempt) -> tuple[object, ...]:
    """Return the fields of a `LoggedAttempt`, without those at the end that most attempts leave at their defaults."""
    usage, first_byte_ms = attempt.usage, attempt.first_byte_ms
    rest = (attempt.error, attempt.other_model, attempt.kind)
    return (
        attempt.n,
        attempt.deployment,
        attempt.tier,
        attempt.model,
        int(attempt.started_ms * 100 + 0.5) / 100,  # a fifth of the time of `round`, which goes by way of text
        None if first_byte_ms is None else int(first_byte_ms * 100 + 0.5) / 100,
        int(attempt.ended_ms * 100 + 0.5) / 100,
        attempt.outcome,
        attempt.http_status,
        None if usage is None else usage.input_tokens,
        None if usage is None else usage.output_tokens,
        attempt.usage_source,
        attempt.cost_nano_usd,
        *(() if rest == _USUAL else rest),
    )
