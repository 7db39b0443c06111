"""Request ids: unlike each other, and in the order of their time where the logs look."""

import re
from itertools import pairwise

from core.identity import new_request_id


def test_ids_have_the_form_that_clients_see_and_differ() -> None:
    ids = {new_request_id() for _ in range(2_000)}
    assert len(ids) == 2_000
    assert all(re.fullmatch(r"req_[0-9a-f]{32}", one) for one in ids)


def test_the_last_sixteen_digits_grow_with_time() -> None:
    moments = [int(new_request_id()[-16:-6], 16) for _ in range(2_000)]
    wrapped = sum(later < earlier for earlier, later in pairwise(moments))
    assert wrapped <= 1  # once in twelve days the forty bits begin anew
    assert len({new_request_id()[-16:] for _ in range(2_000)}) == 2_000
