"""Items reach one reader in groups, in order, and none is lost at the end."""

import threading

from core.hand_over import HandOver


def test_what_arrives_while_a_group_gathers_comes_in_one_group() -> None:
    queue: HandOver[int] = HandOver(gather_s=60.0, most=3)
    taken: list[tuple[list[int], bool]] = []
    reader = threading.Thread(target=lambda: taken.append(queue.take()))
    queue.put(1)
    reader.start()
    queue.put(2)
    queue.close()
    reader.join(10)
    assert taken == [([1, 2], False)]


def test_a_full_group_does_not_wait_for_more() -> None:
    queue: HandOver[int] = HandOver(gather_s=60.0, most=2)
    for n in range(3):
        queue.put(n)
    assert queue.take() == ([0, 1], True)
    queue.close()
    assert queue.take() == ([2], False)


def test_a_closed_queue_is_emptied_group_by_group() -> None:
    queue: HandOver[int] = HandOver(gather_s=60.0, most=2)
    for n in range(5):
        queue.put(n)
    queue.close()
    assert [queue.take() for _ in range(3)] == [([0, 1], True), ([2, 3], True), ([4], False)]


def test_a_queue_closed_empty_ends_with_an_empty_group() -> None:
    queue: HandOver[int] = HandOver(gather_s=60.0, most=2)
    queue.close()
    assert (queue.take(), len(queue)) == (([], False), 0)


def test_a_reader_that_fell_asleep_is_woken_by_the_next_item() -> None:
    queue: HandOver[int] = HandOver(gather_s=0.001, most=7, awake_s=0.0)
    taken: list[tuple[list[int], bool]] = []
    reader = threading.Thread(target=lambda: taken.append(queue.take()))
    reader.start()
    while not queue._is_asleep:
        pass
    queue.put(1)
    reader.join(10)
    assert taken == [([1], True)]


def test_a_reader_waits_for_as_long_as_it_is_told() -> None:
    queue: HandOver[int] = HandOver(gather_s=0.001, most=7)
    assert queue.take(timeout_s=0.01) == ([], True)


def test_an_item_that_hurries_does_not_wait_for_its_group() -> None:
    queue: HandOver[int] = HandOver(gather_s=60.0, most=7)
    queue.put(1)
    queue.put_now(2)
    assert queue.take() == ([1, 2], True)


def test_nothing_put_by_many_threads_is_lost() -> None:
    queue: HandOver[int] = HandOver(gather_s=0.0, most=7)

    def put_all() -> None:
        for n in range(500):
            queue.put(n)

    writers = [threading.Thread(target=put_all) for _ in range(4)]
    for writer in writers:
        writer.start()
    taken: list[int] = []
    while len(taken) < 2_000:
        taken += queue.take()[0]
    for writer in writers:
        writer.join()
    assert sorted(taken) == sorted(list(range(500)) * 4)
