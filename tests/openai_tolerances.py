"""Where answers may differ from the schemas that OpenAI publishes, since the real service differs in the same way."""

from collections.abc import Mapping

NULLS: Mapping[str, str] = {
    "finish_reason": "`null` in every chunk but a choice's last",
    "logprobs": "`null` where none were asked for",
    "refusal": "`null` where nothing was refused",
    "service_tier": "`null` where the upstream names none",
    "system_fingerprint": "`null` where the upstream has none",
    "usage": "`null` in every chunk but the one with the usage",
    "user": "`null` where none was sent",
}
"""Fields that may be null although the schema says that they are absent or have a value, and when they are."""
