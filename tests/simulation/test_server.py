"""A server in virtual time: queueing theory knows how long its requests take, and so does the real engine."""

import math
from random import Random
from statistics import fmean

import pytest

from genserve.serving.admission import places_for
from genserve.simulation.fleet import Outcome, Summary, simulated
from genserve.simulation.machine import Shape
from genserve.simulation.times import Times
from genserve.simulation.traffic import Arrival, Mix, steady

STEP_S = 0.02  # of an evaluation; a visit of the host, 5 ms, is short beside it
ONE = Times(evaluation_ms={1: {1: 1000 * STEP_S}})
TEN_MS = Times(evaluation_ms={1: {1: 500 * STEP_S}})
# one lane that evaluates one image at a time, and lets in whoever comes
QUEUE = Shape(cores=1, budget=1, places=10**6, queue=10**6, deadline_s=1e5)


def exponential(rate: float, steps: float, n: int, seed: int) -> list[Arrival]:
    """Return n requests of one image; their steps are geometric, which is nearly exponential."""
    rng, at, requests = Random(seed), 0.0, []
    for _ in range(n):
        at += rng.expovariate(rate)
        steps_drawn = math.ceil(math.log(1 - rng.random()) / math.log(1 - 1 / steps))
        requests.append(Arrival(at, 1, steps_drawn))
    return requests


def one_by_one(requests: list[Arrival], step_s: float) -> float:
    """Return the mean time of requests that are served first come, first served, by Lindley's recursion."""
    left = spent = last = 0.0
    for one in requests:
        left = max(0.0, left - (one.at - last)) + one.steps * step_s
        last = one.at
        spent += left
    return spent / len(requests)


def mean_s(outcomes: list[Outcome]) -> float:
    assert {one.status for one in outcomes} == {200}
    return fmean(one.seconds for one in outcomes)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_requests_of_one_evaluation_wait_as_in_an_m_d_1_queue(load: float) -> None:
    """Pollaczek and Khinchine: the mean wait is load / (2 (1 - load)) services."""
    rng = Random(3)
    requests = steady(load / STEP_S, 3000 * STEP_S / load, Mix((1, 1), (1, 1)), rng)
    outcomes, _ = simulated(requests, shape=QUEUE, times=ONE)
    assert mean_s(outcomes) == pytest.approx(STEP_S * (1 + load / (2 * (1 - load))), rel=0.12)


def test_requests_of_many_steps_take_as_long_as_in_an_m_m_1_queue() -> None:
    """Equal shares keep the mean of first come, first served: service / (1 - load)."""
    steps, load, took = 12, 0.4, []
    for seed in range(4):
        requests = exponential(load / (steps * STEP_S), steps, 1500, seed)
        took.append(mean_s(simulated(requests, shape=QUEUE, times=ONE)[0]))
        assert took[-1] == pytest.approx(one_by_one(requests, STEP_S), rel=0.03)
    assert fmean(took) == pytest.approx(steps * STEP_S / (1 - load), rel=0.08)


def test_equal_shares_take_as_long_on_average_as_first_come_first_served() -> None:
    requests = exponential(0.75 / (12 * STEP_S), 12, 1500, 1)
    outcomes, _ = simulated(requests, shape=QUEUE, times=ONE)
    assert mean_s(outcomes) == pytest.approx(one_by_one(requests, STEP_S), rel=0.03)


@pytest.mark.parametrize(("few", "many"), [(5, 20), (30, 31), (1, 60)])
def test_two_requests_share_the_lane_equally(few: int, many: int) -> None:
    outcomes, _ = simulated([Arrival(0, 1, few), Arrival(0, 1, many)], shape=QUEUE, times=ONE)
    ends = {one.arrival.steps: one.seconds for one in outcomes}
    assert ends[few] == pytest.approx(2 * few * STEP_S, abs=2.3 * STEP_S)  # the first turn is taken alone
    assert ends[many] == pytest.approx((few + many) * STEP_S, abs=0.3 * STEP_S)


def test_requests_that_fit_in_one_evaluation_do_not_wait_for_each_other() -> None:
    shape = Shape(cores=1, budget=8)
    times = Times(evaluation_ms={1: {1: 10.0, 8: 10.0}})
    outcomes, (server,) = simulated([Arrival(0, 1, 50)] * 8, shape=shape, times=times)
    assert [one.seconds for one in outcomes] == pytest.approx([0.5] * 8, abs=0.02)
    assert server.totals.items == 400
    assert server.totals.batches <= 52  # the first one begins alone


def test_lanes_are_as_busy_as_the_work_that_comes() -> None:
    """The law of utilisation: rate x work x time of an image, in any order and any batches of one."""
    requests = list(steady(2.0, 400, Mix((1, 3), (1, 5)), Random(5)))
    shape = Shape(cores=2, budget=1, queue=10**6, deadline_s=1e5)
    times = Times(evaluation_ms={1: {1: 30.0}, 2: {1: 40.0}})
    outcomes, (server,) = simulated(requests, shape=shape, times=times)
    totals = server.counted()
    assert totals.items == sum(one.work for one in requests)
    assert 0.03 * totals.items < totals.busy_s < 0.04 * totals.items
    # Little: images open on average = their rate x their time in the server
    spent = sum(one.seconds * one.arrival.images for one in outcomes)
    assert totals.item_s == pytest.approx(spent, rel=0.03)


def test_two_workers_do_what_one_does_and_share_the_queue() -> None:
    requests = [Arrival(0.5 * k, 1, 20) for k in range(40)]
    times = Times(evaluation_ms={1: {1: 40.0, 32: 60.0}, 2: {1: 40.0, 32: 60.0}}, host_ms=1.0)
    for workers in (1, 2):
        outcomes, (server,) = simulated(requests, shape=Shape(workers=workers), times=times)
        assert {one.status for one in outcomes} == {200}
        assert server.totals.items == 800
        assert server.shape.lanes == 2 // workers
        assert max(one.seconds for one in outcomes) < 0.9 + 0.02


def test_admission_refuses_as_a_real_worker_does() -> None:
    shape = Shape(cores=1, budget=1, places=12)
    crowd = [Arrival(0.0, 1, 400)] * 20  # too big for the last sixth of the places
    outcomes, _ = simulated(crowd, shape=shape, times=TEN_MS)
    answered = [one for one in outcomes if one.status == 200]
    assert len(answered) == places_for(400, 12) == 10
    assert {one.status for one in outcomes} == {200, 503}
    late = [Arrival(0.0, 1, 700), Arrival(1.0, 1, 700)]  # 7 s each, alone
    outcomes, _ = simulated(late, shape=Shape(cores=1, budget=1, deadline_s=10), times=TEN_MS)
    assert sorted(one.status for one in outcomes) == [200, 503]


def test_a_full_queue_of_the_host_refuses_at_once() -> None:
    shape = Shape(cores=1, budget=1, places=1, queue=2)
    outcomes, _ = simulated([Arrival(0.0, 1, 10)] * 5, shape=shape, times=ONE)
    assert [one.seconds for one in outcomes if one.status == 503][:2] == [0.0, 0.0]


def test_other_work_slows_the_lanes_while_all_cores_evaluate_and_else_it_does_not() -> None:
    busy = [Arrival(0.0, 2, 100), *(Arrival(0.01 * k, 1, 1) for k in range(1, 51))]
    plain, _ = simulated(busy, shape=Shape(cores=1, budget=1), times=TEN_MS)
    owing = Times(evaluation_ms=TEN_MS.evaluation_ms, request_core_ms=10.0)
    slowed, _ = simulated(busy, shape=Shape(cores=1, budget=1), times=owing)
    more = max(one.seconds for one in slowed) - max(one.seconds for one in plain)
    assert more == pytest.approx(50 * 0.010, abs=0.03)
    alone, _ = simulated([Arrival(0.0, 1, 100)], shape=Shape(cores=2, budget=1), times=owing)
    assert alone[0].seconds == pytest.approx(1.0, abs=0.02)


def test_a_request_alone_takes_its_evaluations_and_what_is_measured_beside_them() -> None:
    times = Times(evaluation_ms={1: {1: 10.0}}, host_ms=8.0, answer_ms=3.0)
    outcomes, _ = simulated([Arrival(0.0, 1, 5)], shape=Shape(), times=times)
    assert outcomes[0].seconds == pytest.approx(0.050 + 0.008 + 0.003)


def test_a_seed_gives_the_same_outcomes_and_another_one_others() -> None:
    times = Times(evaluation_ms={1: {1: 2.0, 32: 26.0}}, host_ms=2.0, request_core_ms=1.0)

    def summary(seed: int) -> Summary:
        requests = steady(10, 30, Mix((1, 16), (4, 100)), Random(seed))
        return Summary.of(
            simulated(requests, shape=Shape(), times=times, n=3, policy="two-choices", seed=seed)[0], 30
        )

    assert summary(1) == summary(1) != summary(2)
