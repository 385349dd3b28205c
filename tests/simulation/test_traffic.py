"""Arrivals: Poisson at the rate that is asked for, in the sizes that are allowed."""

from random import Random
from statistics import fmean, variance

import pytest

from genserve.simulation.traffic import Mix, poisson, steady

MIX = Mix((1, 4), (4, 100))


def test_steady_arrivals_are_poisson() -> None:
    at = [one.at for one in steady(20.0, 1000.0, MIX, Random(1))]
    assert at == sorted(at)
    counts = [0] * 1000
    for second in map(int, at):
        counts[second] += 1
    assert fmean(counts) == pytest.approx(20, rel=0.03)
    assert variance(counts) == pytest.approx(20, rel=0.15)


def test_sizes_are_even_over_their_ranges() -> None:
    requests = list(steady(50.0, 400.0, MIX, Random(2)))
    assert {one.images for one in requests} == {1, 2, 3, 4}
    assert {one.steps for one in requests} == set(range(4, 101))
    assert fmean(one.work for one in requests) == pytest.approx(MIX.work, rel=0.03)
    assert MIX.work == 2.5 * 52


def test_a_rate_that_changes_is_followed() -> None:
    at = [one.at for one in poisson(lambda s: 10 if s < 100 else 40, 40, 200, MIX, Random(3))]
    assert sum(one < 100 for one in at) == pytest.approx(1000, rel=0.1)
    assert sum(one >= 100 for one in at) == pytest.approx(4000, rel=0.1)


@pytest.mark.parametrize(("images", "steps"), [((0, 1), (1, 1)), ((2, 1), (1, 1)), ((1, 1), (5, 4))])
def test_a_range_begins_at_one_and_is_not_empty(images: tuple[int, int], steps: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be two numbers, 1 <= fewest <= most"):
        Mix(images, steps)


def test_a_rate_without_requests_or_above_the_highest_is_refused() -> None:
    with pytest.raises(ValueError, match="the rate must be above 0, got 0"):
        list(steady(0, 1, MIX, Random(0)))
    with pytest.raises(ValueError, match="may be at most 1"):
        list(poisson(lambda s: 2.0, 1.0, 100, MIX, Random(0)))
