"""A budget alert becomes a log line, a metric and one webhook call that carries the operator's key."""

import json
import logging
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from core.rules import Budget
from gateway.parts.alerts import Alerts
from gateway.settings.alerting import AlertWebhook
from gateway.telemetry.metrics import Metrics
from policies.budgets import account_of
from policies.ledger import Alert
from tests.receiving import receiver

BUDGET = Budget("month", ZoneInfo("UTC"), 1_000_000_000, "reject", alerts_percent=(80,))
ALERT = Alert(
    account=account_of(BUDGET, "acme", "", None),
    budget=BUDGET,
    percent=80,
    spent_nano_usd=810_000_000,
    limit_nano_usd=1_000_000_000,
    window_id="2026-01",
    until=datetime(2026, 2, 1, tzinfo=UTC),
)


async def test_an_alert_is_logged_counted_and_posted(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics({"acme"}.__contains__)
    with receiver() as (url, posts), caplog.at_level(logging.WARNING):
        alerts = Alerts(metrics, AlertWebhook(url, "ALERT_KEY"), {"ALERT_KEY": "k-1"})
        alerts(ALERT)
        await alerts.drain()
    (post,) = posts
    told = json.loads(post.body)
    assert post.authorization == "Bearer k-1"
    assert (told["tenant"], told["percent"], told["spent_usd"], told["limit_usd"]) == ("acme", 80, "0.81", "1")
    assert "budget alert" in caplog.messages
    assert b'headgate_budget_alerts_total{percent="80",tenant="acme"} 1.0' in metrics.exposition()[0]


async def test_a_webhook_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        alerts = Alerts(Metrics({"acme"}.__contains__), AlertWebhook("http://127.0.0.1:9/nobody", None))
        alerts(ALERT)
        await alerts.drain()
    assert "the alert webhook failed" in caplog.messages
    assert "budget alert" in caplog.messages
