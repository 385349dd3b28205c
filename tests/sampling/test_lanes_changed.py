"""Lanes that are resized, paused and closed while they work lose nothing, and count what they do."""

import subprocess
import sys
import threading
import time

import pytest
import torch
from crowd import REQUESTS, collect, model, request, steady
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genserve.sampling.engine import Finished
from genserve.sampling.lanes import Lanes
from genserve.sampling.samplers import Query, sample
from genserve.sampling.wrappers import guided

CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("resize"), st.integers(1, 4)),
        st.tuples(st.just("cancel"), st.integers(0, 5)),
        st.tuples(st.sampled_from(["pause", "resume", "admit", "wait"]), st.just(0)),
    ),
    max_size=25,
)


@given(requests=REQUESTS, budget=st.integers(1, 9), changes=CHANGES)
def test_nothing_is_lost_or_changed_by_resizes_pauses_and_cancels(
    requests: list[tuple[int, int, int, str, float]], budget: int, changes: list[tuple[str, int]]
) -> None:
    lanes = Lanes(model, 2, budget)
    waiting, ended, cancelled = [*range(len(requests))], list[Finished](), set[int]()
    for change, k in [*changes, ("resume", 0), *[("admit", 0)] * len(requests)]:
        match change:
            case "resize":
                lanes.resize(k)
            case "pause":
                lanes.pause()
            case "resume":
                lanes.resume()
            case "wait":
                ended += lanes.wait(0.001)
            case "admit" if waiting:
                key = waiting.pop()
                lanes.admit(key, request(*requests[key]))
            case "cancel" if k in set(range(len(requests))) - {*waiting, *(e.key for e in ended)}:
                lanes.cancel(k)
                cancelled.add(k)
    ended += collect(lanes, len(requests) - len(cancelled) - len(ended))
    assert lanes.wait(1) == []
    lanes.close()
    assert sorted(e.key for e in ended) == sorted(set(range(len(requests))) - cancelled)
    for e in ended:
        assert e.result is not None
        assert torch.equal(e.result, sample(request(*requests[e.key]), model))
    assert sum(e.evaluated for e in ended if e.result is not None) <= lanes.totals.items
    assert lanes.totals.busy_s <= lanes.totals.open_s or cancelled  # of these, an evaluation may be out


class Gate:
    """A model in which every evaluation waits until it is let through, and that knows how many wait."""

    def __init__(self) -> None:
        self._inside, self._open = set[int](), threading.Semaphore(0)

    def __call__(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        self._inside.add(threading.get_ident())
        self._open.acquire(timeout=10)
        self._inside.remove(threading.get_ident())
        return x

    def holds(self, n: int) -> bool:
        """Return whether this many evaluations wait in the end, and no more come."""
        deadline = time.monotonic() + 10
        while len(self._inside) != n and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(0.02)
        return len(self._inside) == n

    def let(self, n: int) -> None:
        self._open.release(n)


def test_as_many_evaluations_run_as_there_are_lanes_now() -> None:
    gate = Gate()
    lanes = Lanes(gate, 1, 1)
    for key in range(6):
        lanes.admit(key, steady(1, 50))
    assert gate.holds(1)
    lanes.resize(3)
    assert gate.holds(3)
    lanes.resize(2)
    assert gate.holds(3)  # what is under way goes on
    gate.let(1)
    assert gate.holds(2)
    lanes.resize(4)
    assert gate.holds(4)
    gate.let(6 * 50)
    assert [e.evaluated for e in collect(lanes, 6)] == [50] * 6
    lanes.close()


def test_paused_lanes_take_nothing_and_go_on_where_they_were() -> None:
    gate = Gate()
    lanes = Lanes(gate, 2, 1)
    lanes.pause()
    lanes.admit("a", steady(1, 2))
    lanes.admit("b", steady(1, 2))
    assert gate.holds(0)
    lanes.resume()
    assert gate.holds(2)
    lanes.pause()
    gate.let(2)
    assert gate.holds(0)
    assert lanes.cancel("a")
    lanes.resize(1)
    lanes.resume()
    gate.let(1)
    assert [(e.key, e.evaluated) for e in collect(lanes, 1)] == [("b", 2)]
    lanes.close()


def test_lanes_say_since_when_the_longest_evaluation_runs() -> None:
    gate = Gate()
    lanes = Lanes(gate, 2, 1)
    assert lanes.evaluating_since() == 0
    before = time.monotonic()
    lanes.admit("first", steady(1, 1))
    assert gate.holds(1)
    between = time.monotonic()
    lanes.admit("second", steady(1, 1))
    assert gate.holds(2)
    assert before <= lanes.evaluating_since() <= between
    gate.let(1)
    assert gate.holds(1)
    assert lanes.evaluating_since() > 0
    gate.let(1)
    collect(lanes, 2)
    assert lanes.evaluating_since() == 0
    lanes.close()


def test_open_time_follows_the_number_of_lanes() -> None:
    gate = Gate()
    lanes = Lanes(gate, 1, 1)
    lanes.admit("a", steady(1, 1))
    assert gate.holds(1)
    resized = time.monotonic()
    lanes.resize(4)
    time.sleep(0.05)
    gate.let(1)
    collect(lanes, 1)
    four = time.monotonic() - resized
    lanes.close()
    assert lanes.totals.request_s + 3 * 0.05 <= lanes.totals.open_s <= lanes.totals.request_s + 3 * four


def test_closing_waits_for_the_evaluation_under_way_whoever_waits_for_an_end() -> None:
    gate = Gate()
    lanes = Lanes(gate, 1, 1)
    lanes.admit("a", steady(1, 1))
    assert gate.holds(1)
    closing = threading.Thread(target=lanes.close)
    closing.start()
    closing.join(0.05)
    assert closing.is_alive()
    gate.let(1)
    closing.join(10)
    assert not closing.is_alive()
    assert [e.key for e in lanes.wait(0)] == ["a"]


def test_a_sampler_that_is_cancelled_elsewhere_keeps_no_one_waiting() -> None:
    gate = Gate()
    lanes = Lanes(gate, 1, 1)
    lanes.admit("a", steady(1, 1))
    canceller = threading.Timer(0.05, lanes.cancel, ["a"])
    canceller.start()
    began = time.monotonic()
    assert lanes.wait(10) == []
    assert time.monotonic() - began < 5
    gate.let(1)
    lanes.close()


ABRUPT = """
import torch
from genserve.sampling.lanes import Lanes
from genserve.sampling.samplers import Query

x = torch.zeros(32, 64, 32, 32)
network = torch.nn.Conv2d(64, 64, 3, padding=1)

def endless():
    while True:
        yield Query(x, torch.ones(32), torch.zeros(32, dtype=torch.long))

lanes = Lanes(lambda x, sigma, y: network(x), 2, 32)
for key in range(4):
    lanes.admit(key, endless())
lanes.wait(0.5)
"""


def test_a_program_may_end_while_its_lanes_are_inside_torch() -> None:
    done = subprocess.run([sys.executable, "-c", ABRUPT], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_rate_is_measured_before_anything_is_counted() -> None:
    def fixed(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        time.sleep(0.01)
        return x

    lanes = Lanes(fixed, 2, 8)
    assert lanes.rate == 0
    query = Query(torch.zeros(8, 1, 2, 2), torch.ones(8), torch.zeros(8, dtype=torch.long))
    lanes.measure(query, 0.4)
    assert 400 < lanes.rate <= 2 * 8 / 0.01
    totals = lanes.totals
    assert (totals.batches, totals.items, totals.busy_s, totals.open_s, totals.item_s) == (0,) * 5
    assert not lanes.open
    before = lanes.rate
    lanes.resize(1)
    assert lanes.rate == before / 2
    lanes.close()


def test_time_of_images_and_of_lanes_gives_the_open_images_of_an_evaluator() -> None:
    gate = Gate()
    lanes = Lanes(gate, 2, 4)
    began = lanes.totals
    assert began.item_s == 0
    time.sleep(0.05)
    assert lanes.totals.lane_s - began.lane_s >= 0.1  # it grows while nothing is open
    lanes.admit("three", steady(3, 1))
    lanes.admit("guided two", guided(steady(2, 1), 2.0, 3))
    before, start = lanes.totals, time.monotonic()
    time.sleep(0.05)
    after, end = lanes.totals, time.monotonic()
    item_s, lane_s = after.item_s - before.item_s, after.lane_s - before.lane_s
    assert item_s / lane_s == pytest.approx((3 + 2 * 2) / 2, rel=1e-6)
    assert item_s == pytest.approx(7 * (end - start), rel=0.1)
    gate.let(4)
    collect(lanes, 2)
    lanes.close()
    ended = lanes.totals
    time.sleep(0.01)
    assert lanes.totals == ended  # no lane, no time
