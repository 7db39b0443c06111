"""Consumers of the frozen `RequestTrace`: metrics, spans, one log line, one request-log row."""
