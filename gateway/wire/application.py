"""The framework's application without what it would load for libraries that happen to be installed beside it."""

from litestar import Litestar
from litestar.plugins import PluginProtocol
from litestar.plugins.core import MsgspecDIPlugin


class Application(Litestar):
    """A Litestar application that knows msgspec alone: pydantic, where it is installed, costs a start 0.2 s."""

    @staticmethod
    def _get_default_plugins(plugins: list[PluginProtocol]) -> list[PluginProtocol]:
        return [*plugins, MsgspecDIPlugin()]
