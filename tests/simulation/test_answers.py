"""Sizing and surges: more load needs more servers, and what comes late is late by what it waits for."""

import math
from dataclasses import replace

import pytest

from genserve.simulation.answers import CALM_S, SURGES, Setup, by_policy, needed, ridden
from genserve.simulation.fleet import POLICIES
from genserve.simulation.machine import Shape
from genserve.simulation.times import Times
from genserve.simulation.traffic import Mix

SETUP = Setup(
    times=Times(evaluation_ms={1: {1: 40.0, 32: 320.0}}),
    shape=Shape(cores=1),
    mix=Mix((1, 4), (4, 20)),
    seconds=60,
    seed=1,
)
CAPACITY = 100.0  # images that such a server evaluates per second


def test_the_load_of_a_server_is_its_share_of_full_batches() -> None:
    assert SETUP.shape.capacity(SETUP.times) == pytest.approx(CAPACITY)
    assert SETUP.rate(0.5, 4) == pytest.approx(0.5 * 4 * CAPACITY / (2.5 * 12))
    summary, cpu, backlog = SETUP.steady(SETUP.rate(0.5), 1, "least-open")
    assert summary.images_s == pytest.approx(0.5 * CAPACITY / 12, rel=0.2)
    assert 0.5 < cpu < 1  # emptier batches take longer per image
    assert 1 < backlog < 32


def test_backlog_and_utilisation_grow_with_the_load_and_a_full_server_refuses_in_the_end() -> None:
    rows = [SETUP.steady(SETUP.rate(load), 1, "least-open") for load in (0.1, 0.5, 0.9)]
    for signal in (1, 2):
        assert rows[0][signal] < rows[1][signal] < rows[2][signal]
    assert all(summary.refused == 0 for summary, *_ in rows)


def test_every_policy_has_a_summary_at_every_load() -> None:
    rows = list(by_policy(SETUP, (1, 2), (0.2, 0.4)))
    assert [(n, load) for n, load, _ in rows] == [(1, 0.2), (1, 0.4), (2, 0.2), (2, 0.4)]
    assert all(summaries.keys() == POLICIES.keys() for *_, summaries in rows)
    assert len({summary.p95 for summary in rows[0][2].values()}) == 1  # of one server there is no choice


def test_a_day_needs_as_many_servers_as_its_peak_has_work_for_and_a_few_for_the_wait() -> None:
    pictures = 86_400 * CAPACITY / 12  # what one full server draws in a day
    sizes = [needed(SETUP, pictures, peak, 6.0)[0] for peak in (0.3, 1.0, 3.0)]
    assert sizes[0] == 1
    assert sizes[0] < sizes[1] < sizes[2] <= 5
    n, summary, cpu = needed(SETUP, pictures, 3.0, 2.0)
    assert n > sizes[2]
    assert summary.p95 <= 2.0
    assert cpu < 1


def test_a_p95_that_no_server_keeps_is_refused() -> None:
    with pytest.raises(ValueError, match=r"which an idle server takes, got 0\.01"):
        needed(SETUP, 1e4, 1.0, 0.01)


def test_a_surge_adds_servers_which_come_after_their_start() -> None:
    setup = replace(SETUP, seconds=180)
    ride = ridden(setup, SURGES["x 4 at once"], "backlog", 2, 30.0, 0.3)
    assert ride.pods > 2
    assert ride.first_s > 30
    slow = ridden(setup, SURGES["x 4 at once"], "backlog", 2, 90.0, 0.3)
    assert slow.first_s == pytest.approx(ride.first_s + 60)
    assert slow.backlog >= ride.backlog
    assert slow.summary.p95 > ride.summary.p95


def test_enough_servers_from_the_beginning_ride_out_a_surge() -> None:
    calm = ridden(SETUP, SURGES["x 2 at once"], "backlog", 8, 30.0, 0.3)
    assert calm.pods == 8
    assert math.isnan(calm.first_s)
    assert calm.summary.refused == 0


def test_surges_stay_below_their_most() -> None:
    for surge in SURGES.values():
        assert max(surge.factor(s / 2) for s in range(1200)) == pytest.approx(surge.most)
        assert surge.most > 1
    assert CALM_S > 60  # both signals have a full window by then
