"""Cookies of the dashboard: only this gateway opens them, and not for ever."""

from datetime import timedelta

from core.clock import ManualClock
from gateway.admin.session import COOKIE, LIFE, Sessions

KEY = "hga_" + "1" * 60


def test_a_sealed_key_comes_back_out_of_its_cookie() -> None:
    sessions = Sessions(bytes(32), ManualClock())
    value = sessions.seal(KEY)
    assert KEY not in value
    assert sessions.key_in(f"other=1; {COOKIE}={value}") == KEY


def test_another_gateways_cookie_opens_nothing() -> None:
    assert Sessions(bytes([1] * 32), ManualClock()).open(Sessions(bytes(32), ManualClock()).seal(KEY)) is None


def test_a_cookie_ends_after_its_life() -> None:
    clock = ManualClock()
    sessions = Sessions(bytes(32), clock)
    value = sessions.seal(KEY)
    clock.advance((LIFE - timedelta(seconds=1)).total_seconds())
    assert sessions.open(value) == KEY
    clock.advance(2)
    assert sessions.open(value) is None


def test_garbage_opens_nothing() -> None:
    sessions = Sessions(bytes(32), ManualClock())
    sealed = sessions.seal(KEY)
    for value in ("", "x", "%%%", sealed[:-6], "A" + sealed[1:], sealed[:30]):
        assert sessions.open(value) is None, value
    assert sessions.key_in("") is None
    assert sessions.key_in("a=b; \x00") is None
