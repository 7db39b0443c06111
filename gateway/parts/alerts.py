"""Budget alerts leave as a log line, a metric and, where the operator names one, a webhook call."""

import asyncio
import logging
import os
from collections.abc import Mapping

import httpx

from core.money import usd_text
from gateway.settings.alerting import AlertWebhook
from gateway.telemetry.metrics import Metrics
from policies.ledger import Alert

logger = logging.getLogger("headgate.alerts")
TIMEOUT_S = 5.0
MAX_UNDER_WAY = 100


class Alerts:
    """What a ledger calls when a budget passes one of its percentages; it never blocks and never raises."""

    def __init__(
        self, metrics: Metrics, webhook: AlertWebhook | None, environment: Mapping[str, str] = os.environ
    ) -> None:
        self._metrics = metrics
        self._webhook = webhook
        self._environment = environment
        self._under_way: set[asyncio.Task[None]] = set()

    def __call__(self, alert: Alert) -> None:
        """Tell about one alert."""
        told: dict[str, object] = {
            "tenant": alert.account.tenant,
            "window": alert.budget.window,
            "tier": alert.account.tier or None,
            "key_id": alert.account.key_id or None,
            "percent": alert.percent,
            "spent_usd": usd_text(alert.spent_nano_usd),
            "limit_usd": usd_text(alert.limit_nano_usd),
        }
        logger.warning("budget alert", extra=told)
        self._metrics.budget_alert(alert.account.tenant, alert.percent)
        if self._webhook is not None and len(self._under_way) < MAX_UNDER_WAY:
            task = asyncio.create_task(self._send(self._webhook, told))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def drain(self) -> None:
        """Wait until every call under way has ended."""
        await asyncio.gather(*self._under_way)

    async def _send(self, webhook: AlertWebhook, told: dict[str, object]) -> None:
        key = self._environment.get(webhook.key_env) if webhook.key_env else None
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as client:
                (await client.post(webhook.url, json=told, headers=headers)).raise_for_status()
        except httpx.HTTPError as problem:
            logger.warning("the alert webhook failed", extra={"problem": type(problem).__name__})
