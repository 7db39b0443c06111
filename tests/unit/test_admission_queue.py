"""Who is served, moved, kept waiting and sent away when deployments have no slot free."""

import asyncio

import pytest
from msgspec.structs import replace

from backends.admission_queue import AdmissionQueue
from backends.gate import FORGET_S, Gate
from backends.waiting_lines import Claim
from core.clock import ManualClock
from core.errors import Unavailable
from core.rules import WhenLate

NORMAL = Claim("normal", 8.0)
HIGH = Claim("high", 64.0)
LOW = Claim("low", 1.0)
BATCH = Claim("night", 8.0, is_batch=True)


class Line:
    """A queue of one slot (of deployment `a`) unless told, and whom it served, in order."""

    def __init__(self, max_waiting: int = 100, **slots: int) -> None:
        self.clock = ManualClock()
        self.gates = {name: Gate(limit) for name, limit in (slots or {"a": 1}).items()}
        self.sheds: list[str] = []
        self.engine_waits_s: dict[str, float] = {}
        self.queue = AdmissionQueue(
            self.gates.__getitem__,
            self.clock,
            max_waiting=max_waiting,
            on_shed=self.sheds.append,
            engine_wait_s=lambda name, now_s: self.engine_waits_s.get(name, 0.0),
        )
        self.served: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def occupied(self, hold_s: float = 1.0) -> None:
        """Use up every slot, as by requests that usually take `hold_s`."""
        for name, gate in self.gates.items():
            gate.take()
            gate.give_back(hold_s, self.clock.monotonic_s())
            while self.queue.take(name):
                pass

    async def join(self, claim: Claim, label: str = "", names: tuple[str, ...] = ("a",)) -> None:
        async def wait() -> None:
            await self.queue.enter(claim, names)
            self.served.append(label or claim.tenant)

        self._tasks.append(asyncio.create_task(wait()))
        await asyncio.sleep(0)

    async def free(self, times: int, name: str = "a") -> None:
        for _ in range(times):
            self.queue.leave(name, 1.0)
            for _ in range(3):
                await asyncio.sleep(0)

    async def outcome(self, at: int) -> object:
        (done,) = await asyncio.gather(self._tasks[at], return_exceptions=True)
        return done

    def cancel(self, at: int) -> None:
        self._tasks[at].cancel()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def test_nobody_waits_while_slots_are_free() -> None:
    line = Line(a=2)
    assert [await line.queue.enter(NORMAL, ("a",)) for _ in range(2)] == ["a", "a"]
    assert line.gates["a"].taken == 2


async def test_no_limit_lets_everybody_in() -> None:
    line = Line()
    line.gates["a"] = Gate()
    for _ in range(500):
        await line.queue.enter(NORMAL, ("a",))
    assert line.gates["a"].taken == 500


async def test_an_equal_deployment_with_room_is_taken_before_waiting() -> None:
    line = Line(a=1, b=1)
    assert [await line.queue.enter(NORMAL, ("a", "b")) for _ in range(2)] == ["a", "b"]


async def test_the_earliest_deadline_of_a_tenant_goes_first() -> None:
    line = Line()
    await line.occupied()
    for due_s in (9.0, 3.0, 6.0):
        await line.join(replace(NORMAL, due_s=due_s), f"due {due_s:.0f}")
    await line.join(NORMAL, "no hurry")
    await line.free(4)
    assert line.served == ["due 3", "due 6", "due 9", "no hurry"]
    await line.close()


async def test_tenants_share_by_weight() -> None:
    line = Line()
    await line.occupied(0.01)
    for tenant, weight in (("heavy", 8.0), ("light", 2.0)):
        for _ in range(20):
            await line.join(Claim(tenant, weight))
    await line.free(20)
    assert (line.served.count("heavy"), line.served.count("light")) == (16, 4)
    await line.close()


async def test_a_tenant_with_many_requests_does_not_push_out_one_with_few() -> None:
    line = Line()
    await line.occupied(0.01)
    for _ in range(30):
        await line.join(Claim("greedy"))
    await line.join(Claim("modest"))
    await line.free(3)
    assert "modest" in line.served
    await line.close()


async def test_batch_waits_until_nobody_else_does() -> None:
    line = Line()
    await line.occupied()
    await line.join(BATCH)
    for _ in range(3):
        await line.join(LOW)
    await line.free(4)
    assert line.served == ["low", "low", "low", "night"]
    await line.close()


async def test_batch_leaves_a_tenth_of_the_slots_alone() -> None:
    line = Line(a=20)
    taken = 0
    while line.queue.take("a", is_batch=True):
        taken += 1
    assert (taken, line.queue.take("a")) == (18, True)


async def test_who_would_be_served_too_late_is_told_at_once_and_truthfully() -> None:
    line = Line(a=2)
    await line.occupied(hold_s=4.0)
    for _ in range(3):
        await line.join(NORMAL)
    with pytest.raises(Unavailable) as refused:
        await line.queue.enter(replace(NORMAL, start_by_s=5.0), ("a",))
    assert refused.value.retry_after_s == pytest.approx(4 / (2 / 4.0))
    assert line.sheds == ["late"]
    await line.close()


async def test_what_heavier_tenants_use_is_not_there_for_others() -> None:
    line = Line(a=10)
    await line.occupied(hold_s=1.0)
    for _ in range(80):
        line.queue.leave("a", 1.0)
        await line.queue.enter(HIGH, ("a",))
    for claim, expected_s in ((HIGH, 0.1), (NORMAL, 0.5), (BATCH, 0.5)):
        with pytest.raises(Unavailable) as refused:
            await line.queue.enter(replace(claim, when_late="shed"), ("a",))
        assert refused.value.retry_after_s == pytest.approx(expected_s, rel=0.2)


async def test_who_still_makes_it_waits() -> None:
    line = Line(a=2)
    await line.occupied(hold_s=4.0)
    await line.join(replace(NORMAL, start_by_s=5.0))
    await line.free(1)
    assert line.served == ["normal"]
    await line.close()


async def test_a_heavy_tenant_is_not_refused_for_the_queue_of_a_light_one() -> None:
    line = Line()
    await line.occupied(hold_s=1.0)
    for _ in range(20):
        await line.join(LOW)
    await line.join(replace(HIGH, start_by_s=2.0))
    await line.free(2)
    assert "high" in line.served
    await line.close()


async def test_who_would_be_late_is_moved_to_another_tier_with_room() -> None:
    line = Line(a=1, big=1)
    await line.queue.enter(NORMAL, ("a",))
    line.gates["a"].usual_hold_s = 10.0
    assert await line.queue.enter(replace(NORMAL, start_by_s=1.0), ("a",), ("big",)) == "big"


@pytest.mark.parametrize("when_late", ["queue", "shed"])
async def test_who_may_not_be_moved_is_not(when_late: WhenLate) -> None:
    line = Line(a=1, big=1)
    await line.queue.enter(NORMAL, ("a",))
    line.gates["a"].usual_hold_s = 10.0
    with pytest.raises(Unavailable):
        await line.queue.enter(replace(NORMAL, start_by_s=1.0, when_late=when_late), ("a",), ("big",))
    assert line.gates["big"].taken == 0


async def test_who_shall_be_shed_does_not_wait_at_all() -> None:
    line = Line()
    await line.occupied()
    with pytest.raises(Unavailable):
        await line.queue.enter(replace(NORMAL, when_late="shed"), ("a",))
    assert (line.sheds, line.queue.waiting) == (["policy"], 0)


async def test_a_full_queue_refuses() -> None:
    line = Line(max_waiting=2)
    await line.occupied(0.01)
    for _ in range(2):
        await line.join(NORMAL)
    with pytest.raises(Unavailable):
        await line.queue.enter(NORMAL, ("a",))
    assert (line.sheds, line.queue.waiting) == (["full"], 2)
    await line.close()


@pytest.mark.parametrize(("there", "comes"), [(NORMAL, HIGH), (BATCH, NORMAL), (BATCH, LOW)])
async def test_a_full_queue_makes_room_for_who_comes_before(there: Claim, comes: Claim) -> None:
    line = Line(max_waiting=1)
    await line.occupied(0.01)
    await line.join(there)
    await line.join(comes)
    assert isinstance(await line.outcome(0), Unavailable)
    await line.free(1)
    assert (line.served, line.sheds) == ([comes.tenant], ["evicted"])
    await line.close()


async def test_a_client_that_leaves_makes_room() -> None:
    line = Line()
    await line.occupied()
    await line.join(NORMAL, "gone")
    await line.join(NORMAL, "stays")
    line.cancel(0)
    await line.free(1)
    assert (line.served, line.queue.waiting) == (["stays"], 0)
    await line.close()


async def test_a_slot_given_to_a_client_that_leaves_is_handed_on() -> None:
    line = Line()
    await line.occupied()
    await line.join(NORMAL, "gone")
    await line.join(NORMAL, "stays")
    line.queue.leave("a", 1.0)
    line.cancel(0)
    for _ in range(5):
        await asyncio.sleep(0)
    assert line.served == ["stays"]
    assert line.gates["a"].taken == 1
    await line.close()


async def test_waiting_ends_when_starting_makes_no_sense_any_more() -> None:
    line = Line()
    await line.occupied(hold_s=0.001)
    with pytest.raises(Unavailable):
        await line.queue.enter(replace(NORMAL, start_by_s=0.02), ("a",))
    assert (line.sheds, line.queue.waiting) == (["waited"], 0)


async def test_who_waits_for_another_deployment_is_passed_over() -> None:
    line = Line(a=1, b=1)
    await line.occupied()
    await line.join(NORMAL, "for b", ("b",))
    await line.join(NORMAL, "for a", ("a",))
    await line.free(1, "a")
    assert line.served == ["for a"]
    await line.free(1, "b")
    assert line.served == ["for a", "for b"]
    await line.close()


async def test_a_newcomer_does_not_overtake_who_waits() -> None:
    line = Line(a=1, b=1)
    await line.occupied()
    await line.join(NORMAL)
    line.gates["a"].max_concurrency = 2
    assert not line.queue.take("a")
    await line.close()


def test_a_gate_learns_its_limit_from_refusals_and_grows_it_by_successes() -> None:
    gate = Gate()
    for _ in range(20):
        gate.take()
    assert gate.limit(0.0) is None
    gate.too_much(0.0)
    gate.too_much(0.1)
    assert gate.limit(0.1) == 14
    for _ in range(20):
        gate.succeeded()
    assert gate.limit(0.1) == 15
    assert gate.limit(FORGET_S + 1.0) is None


def test_what_the_operator_says_bounds_what_is_learned() -> None:
    gate = Gate(max_concurrency=4)
    assert gate.limit(0.0) == 4
    gate.taken = 100
    gate.too_much(0.0)
    assert gate.limit(0.0) == 4


def test_a_limit_never_falls_below_one() -> None:
    gate = Gate()
    for second in range(10):
        gate.too_much(float(second))
    assert gate.limit(10.0) == 1


async def test_who_enters_has_time_to_spare() -> None:
    line = Line(a=10)
    await line.occupied(hold_s=10.0)
    with pytest.raises(Unavailable):
        await line.queue.enter(replace(NORMAL, start_by_s=1.4), ("a",))
    await line.join(replace(NORMAL, start_by_s=1.6))
    await line.free(1)
    assert line.served == ["normal"]
    await line.close()


async def test_when_others_overtake_as_few_as_needed_are_refused_the_newest_first() -> None:
    line = Line()
    await line.occupied(hold_s=1.0)
    for n in range(4):
        await line.join(replace(NORMAL, due_s=8.0, start_by_s=7.0), f"normal {n}")
    for _ in range(4):
        await line.join(Claim("other", start_by_s=20.0))
    line.queue.refuse_late()
    assert line.sheds == ["late"]
    refusal = await line.outcome(3)
    assert isinstance(refusal, Unavailable)
    assert refusal.retry_after_s == pytest.approx(8.0)
    assert line.queue.waiting == 7
    await line.close()


async def test_who_waits_is_refused_when_slots_come_free_more_slowly() -> None:
    line = Line(a=2)
    await line.occupied(hold_s=1.0)
    await line.join(replace(NORMAL, start_by_s=6.0), "first")
    await line.join(replace(NORMAL, start_by_s=6.0), "second")
    line.clock.advance(4.0)
    line.queue.refuse_late()
    assert line.sheds == ["late"]
    assert isinstance(await line.outcome(1), Unavailable)
    await line.close()


async def test_batch_is_refused_when_others_leave_nothing_over() -> None:
    line = Line()
    await line.occupied(hold_s=1.0)
    await line.join(replace(BATCH, start_by_s=3.0))
    for _ in range(3):
        await line.join(NORMAL)
    line.queue.refuse_late()
    assert isinstance(await line.outcome(0), Unavailable)
    await line.close()


async def test_heavy_arrivals_at_another_deployment_take_nothing_away() -> None:
    line = Line(a=1, b=100)
    await line.occupied(hold_s=1.0)
    for _ in range(100):
        line.queue.leave("b", 1.0)
        await line.queue.enter(HIGH, ("b",))
    await line.join(replace(NORMAL, start_by_s=2.0))
    await line.free(1, "a")
    assert line.served == ["normal"]
    await line.close()


async def test_a_tenant_gets_its_part_once_whatever_names_it_asks_by() -> None:
    line = Line(a=1, b=1)
    await line.occupied(0.01)
    for n in range(12):
        await line.join(Claim("many names"), names=("a",) if n % 2 else ("a", "b"))
        await line.join(Claim("one name"), names=("a",))
    await line.free(10, "a")
    assert (line.served.count("many names"), line.served.count("one name")) == (5, 5)
    await line.close()


async def test_a_slot_handed_on_says_nothing_of_how_long_requests_take() -> None:
    line = Line()
    await line.occupied(hold_s=1.0)
    await line.join(NORMAL)
    line.queue.leave("a", 1.0)
    line.cancel(0)
    for _ in range(3):
        await asyncio.sleep(0)
    assert (line.gates["a"].taken, line.gates["a"].usual_hold_s) == (0, 1.0)
    await line.close()


async def test_an_engine_whose_own_queue_is_too_long_is_not_free_for_who_must_be_in_time() -> None:
    line = Line(a=9, b=9, big=9)
    line.engine_waits_s = {"a": 3.0}
    hurried = replace(NORMAL, start_by_s=2.0)
    assert await line.queue.enter(hurried, ("a", "b")) == "b"
    assert await line.queue.enter(hurried, ("a",), ("big",)) == "big"
    with pytest.raises(Unavailable) as refused:
        await line.queue.enter(replace(hurried, when_late="queue"), ("a",), ("big",))
    assert refused.value.retry_after_s == 3.0
    for patient in (NORMAL, BATCH, replace(NORMAL, start_by_s=4.0)):
        assert await line.queue.enter(patient, ("a",)) == "a"


@pytest.mark.parametrize("engine_wait_s", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("start_by_s", [None, 2.0])
@pytest.mark.parametrize("waiting", [(), (BATCH,), (HIGH,)])
@pytest.mark.parametrize("claim", [NORMAL, BATCH])
async def test_who_enters_at_once_is_who_would_not_have_waited(
    claim: Claim, waiting: tuple[Claim, ...], start_by_s: float | None, engine_wait_s: float
) -> None:
    for taken in range(3):
        line = Line(a=2, b=1)
        for waiter in waiting:
            line.gates["a"].taken = line.gates["b"].taken = 2
            await line.join(waiter, names=("a", "b"))
        line.gates["a"].taken, line.gates["b"].taken = taken, 1
        line.engine_waits_s["a"] = engine_wait_s
        hurried = replace(claim, start_by_s=start_by_s, when_late="shed")
        try:
            is_free = await line.queue.enter(hurried, ("a",)) == "a"
            line.gates["a"].taken -= 1
        except Unavailable:
            is_free = False
        assert line.queue.enter_at_once(hurried, "a") is is_free
        assert line.gates["a"].taken == taken + is_free
        await line.close()
