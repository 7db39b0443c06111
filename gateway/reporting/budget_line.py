"""A budget as the admin API, the commands and reports tell it."""

from msgspec import Struct


class BudgetLine(Struct, frozen=True):
    """One budget in its present window; amounts are decimal USD as text, exact to the nano-dollar.

    `limit_usd` includes what was granted; free = limit - reserved - spent. `unconfirmed_usd` is the part of spent that
    was charged when the lease of a hold ran out.
    """

    tenant: str
    window: str
    window_id: str
    starts_at: str
    ends_at: str
    limit_usd: str
    reserved_usd: str
    spent_usd: str
    free_usd: str
    granted_usd: str
    unconfirmed_usd: str
    key_id: str | None = None
    user: str | None = None
    tier: str | None = None
    rolling: bool = False
    soft: bool = False
