"""The newest of very many ids, in even memory: one table for all would double in one step, long after it was full."""

PARTS = 10


class RecentIds:
    """Remembers at least the `least` newest ids, and at most a tenth more; the oldest go a tenth at once."""

    def __init__(self, least: int) -> None:
        self._part_size = -(-least // PARTS)
        self._newest: set[str] = set()
        self._parts = [self._newest]

    def __contains__(self, id_: str) -> bool:
        return any([id_ in part for part in self._parts])  # noqa: C419 - a generator takes longer, for every request

    def __len__(self) -> int:
        """Return how many are remembered; one that was added again much later may count twice."""
        return sum(map(len, self._parts))

    def add(self, id_: str) -> None:
        """Remember an id."""
        if len(self._newest) >= self._part_size:
            self._newest = set()
            self._parts.append(self._newest)
            del self._parts[: -PARTS - 1]
        self._newest.add(id_)
