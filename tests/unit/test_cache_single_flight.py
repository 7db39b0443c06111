"""Single-flight under real concurrency: one leads, others follow as it streams, failure promotes, waits are bounded."""

import asyncio

import pytest

from cache.single_flight import Alone, Follower, Leader, LeaderFailed, SingleFlight

Flights = SingleFlight[str]


class Work:
    """An answer that is produced on command; it counts how often it was asked for."""

    def __init__(self) -> None:
        self.started = 0
        self.may_begin = asyncio.Event()
        self.may_go_on = asyncio.Event()
        self.fails = 0

    async def serve(self, flights: Flights, got: "list[str] | None" = None, key: str | None = "k") -> tuple[str, str]:
        got = [] if got is None else got
        async with flights.join(key) as place:
            if isinstance(place, Follower):
                async for item in place.items():
                    got.append(item)
                return "joined", "".join(got)
            self.started += 1
            await self.may_begin.wait()
            if self.fails:
                self.fails -= 1
                raise ConnectionError
            for item in ("a", "b"):
                if isinstance(place, Leader):
                    place.publish(item)
                got.append(item)
                await self.may_go_on.wait()
            if isinstance(place, Leader):
                place.complete()
            return "alone" if isinstance(place, Alone) else "led", "".join(got)


async def settled() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


async def test_identical_requests_ask_once_and_all_get_the_answer() -> None:
    flights, work = Flights(), Work()
    tasks = [asyncio.create_task(work.serve(flights)) for _ in range(50)]
    await settled()
    work.may_begin.set()
    work.may_go_on.set()
    answers = await asyncio.gather(*tasks)
    assert work.started == 1
    assert sorted(answers)[-1] == ("led", "ab")
    assert answers.count(("joined", "ab")) == 49
    assert len(flights) == 0


async def test_a_follower_gets_chunks_while_the_leader_still_streams() -> None:
    flights, work, got = Flights(), Work(), list[str]()
    leader = asyncio.create_task(work.serve(flights))
    work.may_begin.set()
    await settled()
    follower = asyncio.create_task(work.serve(flights, got))
    await settled()
    assert got == ["a"]
    assert not leader.done()
    work.may_go_on.set()
    assert await follower == ("joined", "ab")
    assert (await leader)[0] == "led"


async def test_a_failed_leader_promotes_the_first_who_waits_and_the_rest_follow_it() -> None:
    flights, work = Flights(), Work()
    work.fails = 1
    tasks = [asyncio.create_task(work.serve(flights)) for _ in range(5)]
    await settled()
    work.may_begin.set()
    work.may_go_on.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers[0], ConnectionError)
    assert answers[1] == ("led", "ab")
    assert answers[2:] == [("joined", "ab")] * 3
    assert work.started == 2


async def test_a_cancelled_leader_promotes_too() -> None:
    flights, work = Flights(), Work()
    leader = asyncio.create_task(work.serve(flights))
    await settled()
    follower = asyncio.create_task(work.serve(flights))
    await settled()
    leader.cancel()
    await settled()
    work.may_begin.set()
    work.may_go_on.set()
    assert await follower == ("led", "ab")


async def test_a_promoted_follower_that_goes_away_at_once_promotes_the_next() -> None:
    flights, work = Flights(), Work()
    leader, second, third = (asyncio.create_task(work.serve(flights)) for _ in range(3))
    await settled()
    leader.cancel()
    await asyncio.sleep(0)
    second.cancel()
    work.may_begin.set()
    work.may_go_on.set()
    assert await third == ("led", "ab")
    assert len(flights) == 0


async def test_a_follower_that_was_given_part_sees_the_failure() -> None:
    flights, work, got = Flights(), Work(), list[str]()
    leader = asyncio.create_task(work.serve(flights))
    work.may_begin.set()
    await settled()
    follower = asyncio.create_task(work.serve(flights, got))
    await settled()
    leader.cancel()
    with pytest.raises(LeaderFailed):
        await follower
    assert got == ["a"]
    assert len(flights) == 0


async def test_a_follower_that_goes_away_harms_nobody() -> None:
    flights, work = Flights(), Work()
    leader, gone, stays = (asyncio.create_task(work.serve(flights)) for _ in range(3))
    await settled()
    gone.cancel()
    await settled()
    work.may_begin.set()
    work.may_go_on.set()
    assert await stays == ("joined", "ab")
    assert (await leader)[0] == "led"


async def test_waiting_is_bounded_and_then_one_goes_alone() -> None:
    flights, work = Flights(max_wait_s=0.0), Work()
    leader = asyncio.create_task(work.serve(flights))
    await settled()
    work.may_go_on.set()
    late = asyncio.create_task(work.serve(flights))
    await settled()
    assert work.started == 2
    work.may_begin.set()
    assert (await late)[0] == "alone"
    assert (await leader)[0] == "led"


async def test_other_keys_and_no_key_are_not_shared() -> None:
    flights, work = Flights(), Work()
    work.may_begin.set()
    work.may_go_on.set()
    answers = await asyncio.gather(*(work.serve(flights, key=key) for key in ("k", "other", None, None)))
    assert [name for name, _ in answers] == ["led", "led", "alone", "alone"]


async def test_an_answer_beyond_the_bound_is_followed_by_nobody_new() -> None:
    flights = Flights(max_bytes=3)
    async with flights.join("k") as leader:
        assert isinstance(leader, Leader)
        leader.publish("long", 4)
        async with flights.join("k") as late:
            assert isinstance(late, Alone)
        leader.complete()


async def test_followers_are_bounded() -> None:
    flights = Flights(max_followers=1)
    async with flights.join("k") as leader:
        assert isinstance(leader, Leader)
        leader.publish("a")
        async with flights.join("k") as first, flights.join("k") as second:
            assert isinstance(first, Follower)
            assert isinstance(second, Alone)
            assert leader.followers == 1
        leader.complete()
