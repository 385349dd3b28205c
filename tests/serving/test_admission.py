"""The rule of admission: open requests share the work equally, and big ones leave places."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genserve.drawing.client import worth_a_retry
from genserve.serving.admission import (
    places_for,
    refused,
    seconds_to_end,
    seconds_until_ended,
    seconds_until_it_fits,
)
from genserve.serving.limits import WORK_MAX

WORK = st.integers(1, WORK_MAX)
REMAINING = st.lists(st.integers(0, WORK_MAX), max_size=30)
RATE = st.floats(1, 1e5)


def shared(remaining: list[int], rate: float, seconds: float) -> list[float]:
    """Let requests share a rate equally for this time, until the next one ends, again and again.

    Returns:
        What each has left.
    """
    left, now = [float(one) for one in remaining], 0.0
    while now < seconds and (running := [one for one in left if one > 1e-6]):
        step = min(min(running) * len(running) / rate, seconds - now)
        done = step * rate / len(running)
        left = [max(0.0, one - done) if one > 1e-6 else 0.0 for one in left]
        now += step
    return left


@given(work=WORK, remaining=REMAINING, rate=RATE)
def test_a_newcomer_ends_when_it_is_foreseen_to(work: int, remaining: list[int], rate: float) -> None:
    foreseen = seconds_to_end(work, remaining, rate)
    assert shared([work, *remaining], rate, foreseen * 1.001)[0] == pytest.approx(0, abs=1e-3)
    assert shared([work, *remaining], rate, foreseen * 0.999)[0] > 0


@given(work=WORK, remaining=REMAINING.filter(sum), rate=RATE, tight=st.floats(0, 0.99))
def test_who_comes_again_when_told_to_ends_in_time_and_not_much_earlier(
    work: int, remaining: list[int], rate: float, tight: float
) -> None:
    alone, beside = work / rate, seconds_to_end(work, remaining, rate)
    limit_s = alone + tight * (beside - alone)
    wait = seconds_until_it_fits(work, remaining, rate, limit_s)
    later = shared(remaining, rate, wait)
    assert seconds_to_end(work, later, rate) <= limit_s * 1.001 + 1e-3
    if wait * rate > 2 * len(remaining) + 1:
        earlier = shared(remaining, rate, wait - (2 * len(remaining) + 1) / rate)
        assert seconds_to_end(work, earlier, rate) > limit_s * 0.999 - 1e-3


@given(remaining=REMAINING.filter(bool), rate=RATE, data=st.data())
def test_places_are_free_when_they_are_foreseen_to_be(
    remaining: list[int], rate: float, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, len(remaining)))
    seconds = seconds_until_ended(n, remaining, rate)
    assert sum(left < 1e-3 for left in shared(remaining, rate, seconds * 1.001)) >= n


@pytest.mark.parametrize(
    ("work", "places"),
    [(1, 192), (256, 192), (257, 160), (1024, 160), (1025, 128), (WORK_MAX, 128), (10**9, 128)],
)
def test_places_are_kept_for_small_requests(work: int, places: int) -> None:
    assert places_for(work, 192) == places


@given(work=WORK, more=st.integers(0, 1000), places=st.integers(1, 1000))
def test_smaller_requests_have_no_fewer_places_and_each_has_one(work: int, more: int, places: int) -> None:
    assert 1 <= places_for(work + more, places) <= places_for(work, places) <= places


@given(work=WORK, remaining=REMAINING, rate=RATE, deadline_s=st.floats(0.1, 1000))
def test_exactly_those_who_cannot_end_in_time_beside_others_are_refused(
    work: int, remaining: list[int], rate: float, deadline_s: float
) -> None:
    reply = refused(work, remaining, rate, deadline_s, None)
    late = seconds_to_end(work, remaining, rate) > deadline_s
    assert (reply is not None) == (late and remaining != [])
    if reply is None:
        return
    assert reply.status == 503
    assert worth_a_retry(reply.status, reply.body)
    wait, message = int(reply.headers["Retry-After"]), json.loads(reply.body)["error"]
    assert wait >= 1
    assert f"ask again in {wait} s, or for less" in message
    assert ("even alone" in message) == (work / rate > deadline_s)
    assert wait <= max(1, math.ceil(deadline_s))
    if wait < deadline_s:  # when all that are open have been given up
        later = [math.floor(left) for left in shared(remaining, rate, wait)]
        assert refused(work, [left for left in later if left], rate, deadline_s, None) is None


def test_a_full_place_has_room_for_the_small_and_none_for_the_big() -> None:
    crowd = [1000] * 128
    small, big = refused(16, crowd, 0.0, 120, 192), refused(2000, crowd, 0.0, 120, 192)
    assert small is None
    assert big is not None
    assert "128 requests are open, and of this size at most 128 may be" in json.loads(big.body)["message"]
    assert big.headers["Retry-After"] == "1"  # the rate is not known
    known = refused(2000, crowd, 10_000.0, 120, 192)
    assert known is not None
    assert known.headers["Retry-After"] == "13"
    assert refused(16, [1] * 192, 1e9, 120, 192) is not None


def test_without_a_rate_or_places_everybody_comes_in() -> None:
    assert refused(WORK_MAX, [WORK_MAX] * 1000, 0.0, 120, None) is None
