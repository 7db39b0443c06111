from core.recent import RecentIds


def test_at_least_the_newest_are_remembered() -> None:
    recent = RecentIds(100)
    for number in range(1_000):
        recent.add(f"id-{number}")
        assert all(f"id-{one}" in recent for one in (number, max(0, number - 50), max(0, number - 99)))


def test_no_more_than_a_tenth_beyond_them_is_remembered() -> None:
    recent = RecentIds(100)
    for number in range(1_000):
        recent.add(f"id-{number}")
        assert len(recent) <= 110
    assert "id-800" not in recent


def test_an_id_that_is_added_twice_is_remembered_once() -> None:
    recent = RecentIds(100)
    recent.add("same")
    recent.add("same")
    assert len(recent) == 1
    assert "other" not in recent
