"""The engine: a shared evaluation changes no image, and a fault ends only its own sampler."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from crowd import REQUESTS, driven, model, request, steady
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genserve.sampling.engine import Engine, Finished
from genserve.sampling.langevin import mala, slope
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Model, Query, Sampler, sample


def same(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    return x


def drive(engine: Engine, with_model: Model = model) -> list[Finished]:
    ended = []
    while len(engine) or engine.ended:
        ended += engine.tick(with_model)
    return ended


@given(
    requests=REQUESTS, arrivals=st.lists(st.integers(0, 8), min_size=6, max_size=6), budget=st.integers(1, 9)
)
def test_a_request_gets_in_any_company_what_it_gets_alone(
    requests: list[tuple[int, int, int, str, float]], arrivals: list[int], budget: int
) -> None:
    engine, ended, waiting = Engine(budget), [], dict(enumerate(requests))
    for tick in range(6 * 5 * 23 * 2 + 9):  # images, evaluations, guidance: what budget 1 takes at most
        if not waiting and not len(engine):
            break
        for key in [k for k in waiting if arrivals[k] <= tick]:
            engine.admit(key, request(*waiting.pop(key)))
        ended += engine.tick(model)
    assert sorted(e.key for e in ended) == list(range(len(requests)))  # each ends, none twice
    for e in ended:
        alone = sample(request(*requests[e.key]), model)
        torch.testing.assert_close(e.result, alone, rtol=0, atol=1e-6)


@given(
    requests=REQUESTS,
    budget=st.integers(1, 9),
    lanes=st.integers(1, 4),
    sizes=st.sampled_from([(), (1, 2, 4), (1, 3, 8)]),
    order=st.lists(st.integers(0, 3), min_size=50, max_size=50),
)
def test_batches_may_come_back_in_any_order(
    requests: list[tuple[int, int, int, str, float]],
    budget: int,
    lanes: int,
    sizes: tuple[int, ...],
    order: list[int],
) -> None:
    engine = Engine(budget, lanes, sizes)
    for key, settings in enumerate(requests):
        engine.admit(key, request(*settings))
    ended = driven(engine, model, lanes, budget, order)
    assert sorted(e.key for e in ended) == list(range(len(requests)))
    for e in ended:
        torch.testing.assert_close(e.result, sample(request(*requests[e.key]), model), rtol=0, atol=1e-6)


def test_a_lane_takes_its_share_and_leaves_the_rest_to_the_others() -> None:
    engine = Engine(budget=32, lanes=2)
    engine.admit("one", steady(10, 3))
    engine.admit("two", steady(5, 3))
    batches = [engine.take(), engine.take(), engine.take()]
    assert [len(batch) for batch in batches if batch] == [8, 7]


@pytest.mark.parametrize(
    ("items", "lanes", "batches"),
    [
        (28, 2, [16, 12]),  # halves would be 14 and 14
        (24, 2, [12, 12]),
        (23, 2, [12, 11]),
        (20, 2, [12, 8]),
        (17, 2, [9, 8]),  # 12 would leave 5
        (6, 2, [4, 2]),
        (5, 2, [3, 2]),  # 4 would leave one
        (40, 2, [20, 20]),  # no size is as large
        (11, 1, [11]),  # one lane leaves nothing to others
        (30, 3, [12, 12, 6]),
        (27, 3, [9, 9, 9]),  # 12 and 12 would leave 3
    ],
)
def test_a_share_is_raised_to_a_size_of_the_model_if_the_last_lane_gets_half(
    items: int, lanes: int, batches: list[int]
) -> None:
    engine = Engine(64, lanes, (1, 2, 4, 12, 16))
    engine.admit("all", steady(items, 1))
    taken = [engine.take() for _ in range(lanes)]
    assert [len(batch) for batch in taken if batch] == batches


def test_who_ended_and_is_cancelled_before_anybody_looked_is_forgotten() -> None:
    engine = Engine()
    engine.admit("a", steady(1, 1))
    engine.admit("b", steady(1, 1))
    batch = engine.take()
    assert batch is not None
    engine.give(batch, batch.query.x)
    assert not engine.cancel("a")
    assert [e.key for e in engine.finished()] == ["b"]


def test_images_that_are_out_when_their_request_is_cancelled_are_dropped() -> None:
    engine = Engine()
    engine.admit("a", steady(2, 10))
    batch = engine.take()
    assert batch is not None
    assert engine.cancel("a")
    engine.admit("a", steady(3, 1))  # the key may be used again, by another
    engine.give(batch, batch.query.x)
    assert not engine.ended
    assert [len(e.result) for e in drive(engine, same) if e.result is not None] == [3]


@given(requests=REQUESTS, budget=st.integers(1, 9))
def test_a_tick_is_one_call_and_as_full_as_the_budget_and_the_queries_allow(
    requests: list[tuple[int, int, int, str, float]], budget: int
) -> None:
    sizes: list[int] = []

    def counting(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        sizes.append(len(x))
        return model(x, sigma, y)

    engine = Engine(budget)
    for key, settings in enumerate(requests):
        engine.admit(key, request(*settings))
    waiting = sum(n * (1 if guidance == 1 else 2) for _, n, _, _, guidance in requests)
    engine.tick(counting)
    assert sizes == [min(budget, waiting)]


@given(
    crowd=st.integers(1, 8), images=st.integers(1, 16), budget=st.integers(4, 16), quiet=st.integers(0, 30)
)
def test_a_short_request_is_not_held_up_by_long_ones(
    crowd: int, images: int, budget: int, quiet: int
) -> None:
    engine = Engine(budget)
    for key in range(crowd):
        engine.admit(key, steady(images, 10_000))
    for _ in range(quiet):
        engine.tick(same)
    engine.admit("short", steady(1, 10))
    ticks = 0
    while not any(ended.key == "short" for ended in engine.tick(same)):
        ticks += 1
    # before each of its ten images, every other sampler is served at most one query
    assert ticks <= 10 * (crowd * images / budget + 1)


@given(
    images=st.integers(1, 40), budget=st.integers(4, 16), quiet=st.integers(0, 20), places=st.integers(2, 20)
)
def test_a_long_request_advances_however_many_short_ones_come(
    images: int, budget: int, quiet: int, places: int
) -> None:
    engine = Engine(budget)
    engine.admit("long", steady(images, 30))
    for _ in range(quiet):
        engine.tick(same)
    taken, ticks = 1, 0
    while taken:
        for k in range(places - taken):  # every free place is taken by a newcomer, every time
            engine.admit((ticks, k), steady(1, 1))
        ended = engine.tick(same)
        if any(e.key == "long" for e in ended):
            break
        taken, ticks = places - len(ended), ticks + 1
        assert ticks <= 30 * images * places / budget + 30 + places, "the long request starves"


def test_a_sampler_can_be_cancelled() -> None:
    closed = []

    def careful() -> Sampler:
        try:
            return (yield from steady(1, 10))
        finally:
            closed.append(True)

    engine = Engine()
    engine.admit("a", careful())
    engine.admit("b", request(0, 1, 3, "ddim", 1.0))
    engine.tick(model)
    assert engine.cancel("a")
    assert closed == [True]
    assert not engine.cancel("a")
    assert [e.key for e in drive(engine)] == ["b"]


@pytest.mark.parametrize(
    ("name", "guidance", "nfe"), [("ddim", 1.0, 6), ("heun", 1.0, 11), ("dpmpp_2m", 2.0, 12)]
)
def test_nfe_counts_evaluations_of_an_image(name: str, guidance: float, nfe: int) -> None:
    engine = Engine()
    engine.admit("a", request(0, 4, 6, name, guidance))
    engine.admit("b", request(0, 1, 9, "ddim", 1.0))
    assert {e.key: e.evaluated // len(e.result) for e in drive(engine)} == {"a": nfe, "b": 9}


def broken(at: Callable[[Query], bool]) -> Sampler:
    query = Query(torch.ones(1, 1, 2, 2), torch.ones(1), torch.zeros(1, dtype=torch.long))
    for _ in range(5):
        if at(query):
            raise RuntimeError("broken")
        yield query
    return query.x


def test_a_fault_in_a_sampler_is_its_own() -> None:
    engine, calls = Engine(), iter(range(10))
    engine.admit("first query", broken(lambda _: True))
    engine.admit("third query", broken(lambda _: next(calls) == 2))
    engine.admit("good", request(0, 2, 4, "ddim", 1.0))
    ended = {e.key: e for e in drive(engine)}
    assert str(ended["first query"].error) == str(ended["third query"].error) == "broken"
    torch.testing.assert_close(ended["good"].result, sample(request(0, 2, 4, "ddim", 1.0), model))


def test_a_fault_of_the_model_ends_the_samplers_of_that_batch_and_none_later() -> None:
    fail = True

    def moody(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        if fail:
            raise RuntimeError("out of memory")
        return model(x, sigma, y)

    engine = Engine()
    for key in "ab":
        engine.admit(key, request(0, 1, 3, "ddim", 1.0))
    assert [(e.key, str(e.error)) for e in drive(engine, moody)] == [
        ("a", "out of memory"),
        ("b", "out of memory"),
    ]
    fail = False
    engine.admit("c", request(0, 1, 3, "ddim", 1.0))
    assert [e.error for e in drive(engine, moody)] == [None]


def test_a_key_is_used_once_at_a_time() -> None:
    engine = Engine()
    engine.admit(1, request(0, 1, 3, "ddim", 1.0))
    with pytest.raises(ValueError, match="already open"):
        engine.admit(1, request(0, 1, 3, "ddim", 1.0))


def test_gradients_are_off_while_the_model_is_asked() -> None:
    def needs_no_grad(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        assert not torch.is_grad_enabled()
        return model(x, sigma, y)

    engine = Engine()
    engine.admit(1, request(0, 1, 3, "ddim", 1.0))
    assert drive(engine, needs_no_grad)[0].error is None
    with pytest.raises(ValueError, match="budget"):
        Engine(0)


def test_answers_of_several_parts_reach_each_sampler_whole() -> None:
    """A Slope is split by image like a tensor, and put together from as many batches as it took."""

    def spring(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return (x - y.view(-1, 1, 1, 1)).square().flatten(1).sum(1) / (2 * sigma)

    def walk(k: int) -> Sampler:
        x, y = torch.full((k + 1, 1, 2, 2), float(k)), torch.arange(k + 1)
        noise = Streams(k, range(k + 1))
        return mala(x, 1.0 + k, y, steps=3 + k, step_size=0.3, noise=noise)

    engine = Engine(budget=3, lanes=2)
    for k in range(5):
        engine.admit(k, walk(k))
    ended = {}
    while len(engine):
        for finished in engine.tick(partial(slope, spring)):
            ended[finished.key] = finished
    for k in range(5):
        assert torch.equal(ended[k].result, sample(walk(k), partial(slope, spring)))
        assert ended[k].evaluated == (4 + k) * len(ended[k].result)
