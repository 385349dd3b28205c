"""What a visit takes along: no more than the host can take, and everything in the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from real_server import ROOT

from genserve.serving.hosts.parcels import parcel
from genserve.serving.limits import ANSWER_MAX
from genserve.serving.replies import Reply


def test_the_limit_leaves_room_for_the_headers_of_a_hundred_answers() -> None:
    config = (ROOT / "config.properties").read_text()
    limit = int(config.split("max_response_size=")[1].split()[0])
    assert limit > ANSWER_MAX + 100 * 8192


@given(sizes=st.lists(st.integers(0, 12), max_size=9))
def test_visits_take_all_answers_in_their_order_and_none_too_much(sizes: list[int]) -> None:
    left = {k: Reply(bytes(n), "text/plain") for k, n in enumerate(sizes)}
    taken: list[int] = []
    while left:
        now, left = parcel(left, 10)
        bodies = [len(reply.body) for reply in now.values()]
        assert now
        assert sum(bodies) <= 10 or len(bodies) == 1
        taken += now  # type: ignore[arg-type]
    assert taken == list(range(len(sizes)))


@pytest.mark.parametrize("n", [0, 1])
def test_few_answers_go_at_once(n: int) -> None:
    replies = dict.fromkeys(range(n), Reply(b"x", "text/plain"))
    assert parcel(replies) == (replies, {})
