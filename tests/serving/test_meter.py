"""A meter adds up; what it yields are growths, of which the first shows every counter."""

import math

import pytest
from crowd import model
from hypothesis import given
from hypothesis import strategies as st

from genserve.sampling.lanes import Lanes
from genserve.serving.meter import BUCKETS, EVENTS, Meter
from genserve.serving.service import DEADLINE_S

LANES = Lanes(model, 1, 1)  # evaluates nothing here


def growth(meter: Meter) -> dict[tuple[str, str], float]:
    """Return what has grown, but for the time of the lanes, which always does."""
    grown = {(name, le): value for name, value, le in meter.growth()}
    assert grown.pop(("genserve_lane_seconds_total", "")) > 0
    return grown


def test_the_first_growth_is_every_counter_at_zero_and_the_next_one_is_what_has_grown() -> None:
    meter = Meter(LANES)
    first = growth(meter)
    assert set(first.values()) == {0}
    assert {(f"genserve_{event}_total", "") for event in EVENTS} < first.keys()
    assert growth(meter) == {}
    meter.add("failed")
    assert growth(meter) == {("genserve_failed_total", ""): 1}


@given(calls=st.lists(st.lists(st.floats(0, 1000), max_size=5), max_size=5))
def test_growths_add_up_to_a_histogram_as_prometheus_has_it(calls: list[list[float]]) -> None:
    meter = Meter(LANES)
    sums = growth(meter)
    for times in calls:
        for seconds in times:
            meter.took(seconds)
        for key, value in growth(meter).items():
            assert value > 0
            sums[key] += value
    times = [seconds for times in calls for seconds in times]
    buckets = {float(le): n for (name, le), n in sums.items() if name == "genserve_request_seconds_bucket"}
    assert buckets == {bound: sum(s <= bound for s in times) for bound in (*BUCKETS, math.inf)}
    assert sums["genserve_request_seconds_count", ""] == len(times)
    assert sums["genserve_request_seconds_sum", ""] == pytest.approx(sum(times), abs=1e-4)


def test_buckets_reach_the_deadline() -> None:
    assert BUCKETS[0] == 0.05
    assert DEADLINE_S in BUCKETS
    assert list(BUCKETS) == sorted(BUCKETS)


def test_an_event_that_is_not_listed_is_refused() -> None:
    with pytest.raises(KeyError, match="answred"):
        Meter(LANES).add("answred")
