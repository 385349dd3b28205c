"""The engine in threads: the same images, no request waits for ever, the lanes run side by side."""

import threading
import time

import pytest
import torch
from crowd import REQUESTS, collect, model, request, steady
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genserve.sampling.lanes import Lanes
from genserve.sampling.samplers import sample


@given(requests=REQUESTS, budget=st.integers(1, 9), n=st.integers(1, 3))
def test_every_request_ends_once_with_the_image_it_gets_alone(
    requests: list[tuple[int, int, int, str, float]], budget: int, n: int
) -> None:
    lanes = Lanes(model, n, budget)
    for key, settings in enumerate(requests):
        lanes.admit(key, request(*settings))
    ended = collect(lanes, len(requests))
    assert sorted(e.key for e in ended) == list(range(len(requests)))
    assert lanes.wait(0.01) == []
    for e in ended:
        torch.testing.assert_close(e.result, sample(request(*requests[e.key]), model), rtol=0, atol=1e-6)
    assert lanes.totals.items == sum(e.evaluated for e in ended if e.result is not None)
    lanes.close()


def test_two_lanes_evaluate_at_the_same_time() -> None:
    meeting = threading.Barrier(2, timeout=10)

    def together(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        meeting.wait()  # passes only when both lanes are inside the model
        return x

    lanes = Lanes(together, 2, 4)
    lanes.admit("one request of two images", steady(2, 5))
    (ended,) = collect(lanes, 1)
    assert ended.error is None
    lanes.close()


def test_a_newcomer_joins_while_others_run() -> None:
    lanes = Lanes(lambda x, sigma, y: (time.sleep(0.002), x)[1], 1, 8)
    lanes.admit("long", steady(1, 500))
    assert lanes.wait(0.05) == []
    lanes.admit("short", steady(1, 5))
    assert [e.key for e in collect(lanes, 1)] == ["short"]
    assert lanes.cancel("long")
    assert lanes.wait(1) == []  # nothing is open: it does not wait
    lanes.close()
    assert 0 < lanes.totals.busy_s <= lanes.totals.open_s + 0.1  # what was out when its request was cancelled


def test_open_time_is_summed_over_samplers() -> None:
    release = threading.Event()
    lanes = Lanes(lambda x, sigma, y: (release.wait(10), x)[1], 1, 8)
    began = time.perf_counter()
    lanes.admit("first", steady(1, 1))
    time.sleep(0.05)
    second = time.perf_counter()
    lanes.admit("second", steady(1, 1))
    time.sleep(0.05)
    release.set()
    collect(lanes, 2)
    end = time.perf_counter()
    lanes.close()
    assert 0.05 + 2 * 0.05 <= lanes.totals.request_s <= (end - began) + (end - second)
    assert 0.1 <= lanes.totals.open_s <= end - began


def test_a_fault_of_the_model_is_an_answer() -> None:
    def broken(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        raise RuntimeError("broken")

    lanes = Lanes(broken, 2, 8)
    lanes.admit(1, steady(3, 2))
    (ended,) = collect(lanes, 1)
    assert str(ended.error) == "broken"
    lanes.close()


def test_lanes_are_at_least_one() -> None:
    with pytest.raises(ValueError, match="lanes must be at least 1"):
        Lanes(model, 0, 8)
    lanes = Lanes(model, 2, 8)
    with pytest.raises(ValueError, match="lanes must be at least 1"):
        lanes.resize(0)
    assert lanes.n == 2
    lanes.close()
