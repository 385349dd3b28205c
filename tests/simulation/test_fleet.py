"""Servers behind a proxy: which one each policy chooses, and what that is worth."""

from random import Random

import pytest

from genserve.simulation.fleet import POLICIES, Outcome, Replica, Summary, quantile, simulated
from genserve.simulation.machine import Shape
from genserve.simulation.times import Times
from genserve.simulation.traffic import Arrival, Mix, steady

TIMES = Times(evaluation_ms={1: {1: 4.0, 32: 40.0}}, host_ms=2.0)
SHAPE = Shape(cores=1)
MIX = Mix((1, 16), (4, 100))


def replicas(*n_open: int) -> list[Replica]:
    """Return servers with this many requests open, of which only the proxy's count is looked at."""
    row = [Replica(None) for _ in n_open]  # type: ignore[arg-type]
    for replica, n in zip(row, n_open, strict=True):
        replica.open = n
    return row


def test_round_robin_takes_turns() -> None:
    row, choose = replicas(9, 0, 0), POLICIES["round-robin"]()
    assert [row.index(choose(row, Random(0))) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_least_open_takes_the_fewest_and_draws_among_equals() -> None:
    row, choose, rng = replicas(3, 1, 2, 1), POLICIES["least-open"](), Random(0)
    assert {row.index(choose(row, rng)) for _ in range(50)} == {1, 3}


def test_two_choices_never_take_the_fullest_and_not_always_the_emptiest() -> None:
    row, choose, rng = replicas(3, 0, 2), POLICIES["two-choices"](), Random(0)
    chosen = [row.index(choose(row, rng)) for _ in range(3000)]
    assert chosen.count(1) == pytest.approx(2000, abs=150)  # it is in two of the three pairs
    assert 0 not in chosen
    (alone,) = replicas(5)
    assert choose([alone], rng) is alone


def test_the_policies_rank_as_theory_has_them() -> None:
    """The less a policy knows of the servers, the longer the slow requests take."""
    rate = 0.8 * 8 * SHAPE.capacity(TIMES) / MIX.work
    p95 = {}
    for policy in POLICIES:
        requests = steady(rate, 60, MIX, Random(4))
        outcomes, servers = simulated(requests, shape=SHAPE, times=TIMES, n=8, policy=policy)
        p95[policy] = Summary.of(outcomes, 60).p95
        assert all(server.totals.items for server in servers)
    assert p95["least-open"] < p95["two-choices"] < p95["round-robin"]


def test_a_summary_counts_what_was_refused_and_times_what_was_answered() -> None:
    outcomes = [Outcome(Arrival(0, 2, 1), 200, k / 10) for k in range(1, 20)]
    outcomes += [Outcome(Arrival(0, 9, 1), status, 99.0) for status in (503, 504, 503, 503, 503, 503)]
    assert Summary.of(outcomes, 19.0) == Summary(25, 6 / 25, 1.0, 1.9, 2.0)


def test_a_quantile_is_one_of_the_values() -> None:
    assert [quantile([1, 2, 3, 4], q) for q in (0.01, 0.25, 0.26, 0.5, 1.0)] == [1, 1, 2, 2, 4]


def test_a_policy_that_does_not_exist_is_named() -> None:
    with pytest.raises(ValueError, match="policies are round-robin, least-open, two-choices, got 'random'"):
        simulated([], shape=SHAPE, times=TIMES, policy="random")
    with pytest.raises(ValueError, match="at least 1 server must be ready, got 0"):
        simulated([], shape=SHAPE, times=TIMES, n=0)
