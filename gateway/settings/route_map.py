"""Which paths below `/v1` are the gateway's own, and which an operator may map to a deployment."""

import re
from collections.abc import Mapping

from core.endpoints import CHAT, COMPLETIONS, EMBEDDINGS
from core.errors import ConfigurationError
from core.money import Price

PATHS = {"chat": CHAT, "completions": COMPLETIONS, "embeddings": EMBEDDINGS}
OWN_PATHS = ("/v1/models", "/v1/responses", "/v1/messages", "/v1/feedback")
_ROUTE = re.compile(r"/v1(/[A-Za-z0-9][A-Za-z0-9_.-]*)+\Z")


def checked_routes(routes: Mapping[str, str], prices: Mapping[str, Price], file: str) -> Mapping[str, str]:
    """Return the mapped routes once each names a remote deployment with a flat price, and no path of our own.

    Args:
        routes: paths to names of deployments.
        prices: the prices of the remote deployments.
        file: the name used in errors.

    Raises:
        ConfigurationError: a path or a deployment that cannot be used.
    """
    for path, name in routes.items():
        key, own = f"routes.{path[:80]}", (*OWN_PATHS, *(f"/v1{one}" for one in PATHS.values()))
        if not _ROUTE.match(path) or any(path == one or path.startswith(f"{one}/") for one in own):
            mend = "write a path such as /v1/rerank that the gateway does not serve itself"
            raise ConfigurationError(file, key, "not a path that can be mapped", mend)
        price = prices.get(name)
        if price is None:
            mend = f"define {name[:80]!r} with `backend: remote`"
            raise ConfigurationError(file, key, f"{name[:80]!r} is no remote deployment", mend)
        if price.input_pico_usd or price.output_pico_usd:
            mend = 'write input_usd_per_m: 0, output_usd_per_m: 0 and usd_per_request: "..."'
            raise ConfigurationError(file, f"deployments.{name}.price", "a mapped route needs a flat price", mend)
    return routes
