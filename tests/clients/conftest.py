"""The gateway and the upstream of the end-to-end tests, for clients that live in environments of their own."""

from tests.e2e.conftest import fresh_upstream, gateway, key, upstream

__all__ = ["fresh_upstream", "gateway", "key", "upstream"]
