"""The key `workers`: how many processes serve the public listener, and what of a limit is each one's share."""

from dataclasses import dataclass, replace
from typing import Annotated

from msgspec import Meta

from core.errors import ConfigurationError
from gateway.settings.deployments import DeploymentSettings, EncoderDeployment

MOST_WORKERS = 64
Workers = Annotated[int, Meta(ge=1, le=MOST_WORKERS)]


@dataclass(frozen=True, slots=True)
class Worker:
    """One of `count` processes that share a port; the first, number 0, hosts engines and has the admin listener."""

    number: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Tell whether this is the process that does what is done once."""
        return self.number == 0

    def share(self, limit: int) -> int:
        """Return this process's part of a limit, at least 1 of any that is not 0."""
        return limit if limit == 0 else max(1, limit // self.count)

    def share_of(self, deployment: DeploymentSettings) -> DeploymentSettings:
        """Return a deployment with this process's part of its concurrency."""
        if isinstance(deployment, EncoderDeployment) or deployment.max_concurrency is None:
            return deployment
        return replace(deployment, max_concurrency=self.share(deployment.max_concurrency))


def refuse_workers(workers: int, redis_url: str | None, file: str) -> None:
    """Refuse several processes where the state is one process's own.

    Raises:
        ConfigurationError: there are several, and no Redis; or far too many.
    """
    if not 1 <= workers <= MOST_WORKERS:
        raise ConfigurationError(file, "workers", f"{workers} is out of range", f"use 1 to {MOST_WORKERS}")
    if workers > 1 and redis_url is None:
        problem = f"{workers} workers cannot keep one budget in a file"
        raise ConfigurationError(file, "workers", problem, "set `state: redis://HOST:PORT/DB`, or `workers: 1`")
