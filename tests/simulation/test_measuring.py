"""Measured times are those of the model, with as many evaluations side by side as asked for."""

import time

import pytest
import torch
from torch import Tensor

from genserve.simulation.measuring import circumstances, evaluation_ms

SHAPE = (1, 2, 2)


def slow(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """Take ten milliseconds for an image, without a core."""
    assert not torch.is_grad_enabled()
    assert len(x) == len(sigma) == len(y)
    time.sleep(0.01 * len(x))
    return x


def test_evaluations_are_timed_by_images_and_lanes() -> None:
    tables = evaluation_ms(slow, SHAPE, 2, sizes=(1, 3), rounds=2, seconds=0.05)
    assert tables.keys() == {1, 2}
    for table in tables.values():
        assert table[1] == pytest.approx(10, rel=0.5)
        assert table[3] == pytest.approx(30, rel=0.5)


def test_a_core_that_is_not_used_takes_no_time_of_it() -> None:
    table = evaluation_ms(slow, SHAPE, 1, sizes=(1,), rounds=1, seconds=0.05, clock="cpu")[1]
    assert table[1] < 5


def test_a_measurement_says_when_and_under_which_load() -> None:
    about = circumstances(command="genserve simulate measure")
    assert about["command"] == "genserve simulate measure"
    assert len(about["load_average"]) == 3
    assert about["cores"] >= 1
