"""The learners of all tenants and the requests that wait for their outcome; bounded, and kept over a restart."""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import date

import msgspec

from router.chance import Chance
from router.context import VERSION
from router.learner import SavedTenant, TenantLearner, restored

SCHEMA = 1
MAX_TENANTS = 1_000
MAX_CHANCES = 10_000


class _Saved(msgspec.Struct, frozen=True):
    schema: int
    weights: str
    context: int
    tenants: dict[str, SavedTenant]
    spent: dict[str, tuple[date, int]]


@dataclass(slots=True)
class Learners:
    """Everything learned with one weight set, which `weights` names; `spent` is what comparisons cost a tenant, by day.

    Used from the event loop; `dump` from any thread.
    """

    weights: str
    tenants: OrderedDict[str, TenantLearner] = field(default_factory=OrderedDict)
    chances: OrderedDict[str, Chance] = field(default_factory=OrderedDict)
    spent: dict[str, tuple[date, int]] = field(default_factory=dict)

    def of(self, tenant: str, tiers: tuple[str, ...]) -> TenantLearner:
        """Return the tenant's learner; a new one where there is none, or it learned of other tiers."""
        learner = self.tenants.get(tenant)
        if learner is None or learner.tiers != tiers:
            learner = self.tenants[tenant] = TenantLearner(tiers)
        self.tenants.move_to_end(tenant)
        if len(self.tenants) > MAX_TENANTS:
            self.tenants.popitem(last=False)
        return learner

    def wait(self, request_id: str, chance: Chance) -> None:
        """Keep what the request's outcome may teach; the oldest is forgotten first."""
        self.chances[request_id] = chance
        if len(self.chances) > MAX_CHANCES:
            self.chances.popitem(last=False)

    def dump(self) -> bytes:
        """Return the state as JSON, without texts and without what waits."""
        tenants = {name: learner.saved() for name, learner in [*self.tenants.items()]}
        return msgspec.json.encode(_Saved(SCHEMA, self.weights, VERSION, tenants, dict(self.spent)))

    def restore(self, dumped: bytes) -> None:
        """Take over what `dump` returned.

        Raises:
            ValueError: it is not a dump, one of another schema, or of other weights.
        """
        saved = msgspec.json.decode(dumped, type=_Saved)
        found, known = (saved.schema, saved.weights, saved.context), (SCHEMA, self.weights, VERSION)
        if found != known:
            raise ValueError(f"schema, weights and context {found} instead of {known}")
        for name, one in saved.tenants.items():
            self.tenants[name] = restored(one)
        self.spent.update(saved.spent)
