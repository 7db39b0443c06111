"""The framework's application without what it would load for libraries that happen to be installed beside it."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import cast

from litestar import Litestar
from litestar.enums import ScopeType
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin
from litestar.types import ASGIApp, LifeSpanReceive, LifeSpanScope, LifeSpanSend, Receive, Scope, Send


class Application(Litestar):
    """A Litestar application that knows msgspec alone: pydantic, where it is installed, costs a start 0.2 s."""

    direct: Mapping[str, ASGIApp] = MappingProxyType({})

    async def __call__(
        self, scope: Scope | LifeSpanScope, receive: Receive | LifeSpanReceive, send: Send | LifeSpanSend
    ) -> None:
        """Serve one request.

        A path of `direct` goes straight to its application: the framework's trie, scope state, exception handler and
        wrapped `send` cost 30 µs a request and do nothing for a handler that renders its own errors.
        """
        app = self.direct.get(str(scope.get("path"))) if scope["type"] == ScopeType.HTTP else None
        if app is not None:
            await app(cast(Scope, scope), cast(Receive, receive), cast(Send, send))
        else:
            await super().__call__(scope, receive, send)

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]
