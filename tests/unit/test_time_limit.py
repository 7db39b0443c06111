import asyncio

import pytest

from core.time_limit import TimeLimit


async def test_what_takes_too_long_is_a_timeout_and_nothing_else_is_cancelled() -> None:
    with pytest.raises(TimeoutError), TimeLimit(0.0):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_what_ends_in_time_is_left_alone() -> None:
    with TimeLimit(0.01) as limit:
        await asyncio.sleep(0)
    fired = asyncio.Event()
    asyncio.get_running_loop().call_later(0.02, fired.set)
    await fired.wait()
    assert limit is not None


async def test_without_seconds_there_is_no_limit() -> None:
    passed = False
    with TimeLimit(None):
        for _ in range(10):  # one turn of the loop would end before any limit rings
            await asyncio.sleep(0)
        passed = True
    assert passed


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    began = asyncio.Event()

    async def wait() -> None:
        with TimeLimit(60.0):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_from_outside_wins_over_a_limit_that_passes_with_it() -> None:
    began = asyncio.Event()

    async def wait() -> None:
        with TimeLimit(0.0):
            began.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_inner_limit_is_the_one_that_passes() -> None:
    with TimeLimit(60.0), pytest.raises(TimeoutError), TimeLimit(0.0):
        await asyncio.Event().wait()
