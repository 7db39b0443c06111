"""The garbage collector, set for a process that serves: what was loaded is not walked through again and again.

Under Python's own setting a collection begins with every few hundred objects that live, which 64 requests under way
always have, and every now and then it walks through all that the program loaded: a quarter of a request's CPU time.
"""

import asyncio
import gc
from collections.abc import Callable

YOUNG_OBJECTS = 25_000
YOUNG_ROUNDS = 20
MIDDLE_ROUNDS = 20
POLL_S = 1.0


def collect_rarely() -> None:
    """Let many objects gather before they are looked at; most are gone by then, without a collection."""
    gc.set_threshold(YOUNG_OBJECTS, YOUNG_ROUNDS, MIDDLE_ROUNDS)


async def keep_loaded(is_loaded: Callable[[], bool], poll_s: float = POLL_S) -> None:
    """Take what is there now, and again once all is loaded, for kept for ever: no collection looks at it."""
    gc.freeze()
    while not is_loaded():  # noqa: ASYNC110 - a thread loads, and has no event of the loop
        await asyncio.sleep(poll_s)
    gc.freeze()
