"""The section `alerts`: where budget alerts are posted."""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Struct

from gateway.settings.urls import plain_url
from policies.schema import says


class AlertsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """Where budget alerts are sent, besides the log and the metrics."""

    webhook_url: Annotated[str, says("Alerts are posted there as JSON.")]
    webhook_key_env: Annotated[str | None, says("Environment variable of the key that signs in at the webhook.")] = None


@dataclass(frozen=True, slots=True)
class AlertWebhook:
    """Where budget alerts are posted; the key's environment variable is named, never its value."""

    url: str
    key_env: str | None


def alert_webhook(entry: AlertsEntry | None, file: str) -> AlertWebhook | None:
    """Return the webhook, None without one.

    Raises:
        ConfigurationError: the URL cannot be used.
    """
    if entry is None:
        return None
    return AlertWebhook(plain_url(entry.webhook_url, file, "alerts.webhook_url"), entry.webhook_key_env)
