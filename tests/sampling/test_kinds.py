"""The engine over queries of several kinds: a text with its recurrent state, a point to look at, an image."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
import torch
from crowd import driven, model, request
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from genserve.sampling.engine import Engine, Finished, Sampler
from genserve.sampling.lanes import Lanes
from genserve.sampling.samplers import Query

WIDTH, SYMBOLS = 5, 7
generator = torch.Generator().manual_seed(0)
EMBEDDING = torch.randn(SYMBOLS, WIDTH, generator=generator, dtype=torch.float64)
MIXING = torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64)


class Step(NamedTuple):
    """A symbol of each text, after what is remembered of the symbols before."""

    symbol: Tensor  # (B,)
    state: Tensor  # (B, WIDTH)


class Ahead(NamedTuple):
    """What comes next."""

    logits: Tensor  # (B, SYMBOLS)
    state: Tensor  # (B, WIDTH)


class Look(NamedTuple):
    """A point to be looked at once."""

    x: Tensor  # (B, ...)


def ahead(symbol: Tensor, state: Tensor) -> Ahead:
    state = torch.tanh(state @ MIXING + EMBEDDING[symbol])
    return Ahead(state @ EMBEDDING.T, state)


def seen(x: Tensor) -> tuple[Tensor, Tensor]:
    flat = x.flatten(1)
    return flat.sum(1), flat.max(1).values


MODELS: dict[type, Callable[..., Any]] = {Query: model, Step: ahead, Look: seen}


def text(firsts: Sequence[int], lengths: Sequence[int]) -> Sampler:
    """Return the likeliest text after each first symbol; the texts end one by one, and leave the query."""
    texts = [[first] for first in firsts]
    rows = torch.arange(len(firsts))
    symbol, state = torch.tensor(firsts), torch.zeros(len(firsts), WIDTH, dtype=torch.float64)
    while len(rows):
        answer = yield Step(symbol, state)
        assert isinstance(answer, Ahead)  # read by name
        symbol, state = answer.logits.argmax(1), answer.state
        for row, one in zip(rows.tolist(), symbol.tolist(), strict=True):
            texts[row].append(one)
        more = torch.tensor([len(texts[row]) < lengths[row] for row in rows.tolist()])
        rows, symbol, state = rows[more], symbol[more], state[more]
    return texts


def look(x: Tensor) -> Sampler:
    """Return what is seen of points, and of them turned round: two queries, the second of one half each."""
    total, largest = yield Look(x)
    again, _ = yield Look(-x)
    return [*total.tolist(), *largest.tolist(), *again.tolist()]


def alone(sampler: Sampler) -> Any:
    query = next(sampler)
    while True:
        try:
            query = sampler.send(MODELS[type(query)](*query))
        except StopIteration as end:
            return end.value


def sampler_of(kind: str, n: int, size: int) -> Sampler:
    """Return a request; the same arguments give the same one."""
    if kind == "text":
        return text([k % SYMBOLS for k in range(size, size + n)], [2 + (size + k) % 6 for k in range(n)])
    if kind == "image":
        return request(size, n, 2 + size, "ddim", 1.0)
    shape = (n, 3) if kind == "point" else (n, 2, 2)
    return look(torch.arange(shape[0] * 3.0 if kind == "point" else shape[0] * 4.0).view(shape) + size)


REQUESTS = st.lists(
    st.tuples(st.sampled_from(["text", "image", "point", "square"]), st.integers(1, 4), st.integers(0, 5)),
    min_size=1,
    max_size=8,
)


def check(ended: Sequence[Finished], requests: list[tuple[str, int, int]]) -> None:
    assert sorted(e.key for e in ended) == list(range(len(requests)))
    for e in ended:
        torch.testing.assert_close(e.result, alone(sampler_of(*requests[e.key])), rtol=0, atol=1e-6)


@given(
    requests=REQUESTS,
    budget=st.integers(1, 9),
    lanes=st.integers(1, 3),
    order=st.lists(st.integers(0, 2), min_size=20, max_size=20),
)
def test_requests_of_any_kinds_get_together_what_each_gets_alone(
    requests: list[tuple[str, int, int]], budget: int, lanes: int, order: list[int]
) -> None:
    engine = Engine(budget, lanes)
    for key, settings in enumerate(requests):
        engine.admit(key, sampler_of(*settings))
    check(driven(engine, MODELS, lanes, budget, order), requests)


@given(requests=REQUESTS)
def test_a_batch_is_of_one_kind_and_as_full_as_that_kind_allows(requests: list[tuple[str, int, int]]) -> None:
    engine = Engine(budget=1000)
    for key, settings in enumerate(requests):
        engine.admit(key, sampler_of(*settings))
    waiting: dict[Any, int] = {}
    for settings in requests:
        query = next(sampler_of(*settings))
        kind = (type(query), query[0].shape[1:])
        waiting[kind] = waiting.get(kind, 0) + len(query[0])
    taken: dict[Any, int] = {}
    while batch := engine.take():
        kind = (type(batch.query), batch.query[0].shape[1:])
        assert kind not in taken
        taken[kind] = len(batch)
    assert taken == waiting


def test_lanes_evaluate_every_kind() -> None:
    requests = [("text", 3, 1), ("image", 2, 2), ("point", 4, 3), ("square", 2, 3), ("text", 1, 4)]
    lanes, ended = Lanes(MODELS, 2, budget=4), list[Finished]()
    for key, settings in enumerate(requests):
        lanes.admit(key, sampler_of(*settings))
    while len(ended) < len(requests):
        ended += lanes.wait(5)
    lanes.close()
    check(ended, requests)


def test_no_kind_waits_longer_than_its_share_while_another_always_has_more() -> None:
    """Ten requests of many images come again and again; a text of ten steps ends within eleven turns each."""
    engine, turns = Engine(budget=4), 0
    for key in range(10):
        engine.admit(key, request(key, 4, 40, "ddim", 1.0))
    engine.admit("text", text([0], [11]))
    while not any(e.key == "text" for e in engine.tick(MODELS)):
        turns += 1
        assert turns <= 10 * 11 + 10


def test_a_recurrent_state_is_that_of_its_own_text() -> None:
    """The state decides: the same symbol after other ones is followed by something else."""
    engine = Engine(budget=64)
    texts = [[a, b] for a in range(SYMBOLS) for b in range(SYMBOLS)]

    def after(symbols: list[int]) -> Sampler:
        state = torch.zeros(1, WIDTH, dtype=torch.float64)
        for symbol in symbols:
            _, state = yield Step(torch.tensor([symbol]), state)
        return state

    for key, symbols in enumerate(texts):
        engine.admit(key, after(symbols))
    ended: dict[Any, Tensor] = {}
    while len(engine):
        ended |= {e.key: e.result for e in engine.tick(MODELS)}
    for key, symbols in enumerate(texts):
        torch.testing.assert_close(ended[key], alone(after(symbols)))
    assert len({tuple(state[0].tolist()) for state in ended.values()}) == len(texts)


@pytest.mark.parametrize(
    "query",
    [Look(torch.zeros(0, 3)), Step(torch.zeros(2).long(), torch.zeros(3, WIDTH))],
    ids=["no items", "tensors of two and of three items"],
)
def test_a_query_that_is_none_ends_its_own_sampler_alone(query: Any) -> None:
    def wrong(first: Any) -> Sampler:
        yield first
        yield query

    engine = Engine()
    engine.admit("good", text([1], [4]))
    engine.admit("at once", wrong(query))
    engine.admit("later", wrong(Look(torch.zeros(1, 3))))
    ended: dict[Any, Finished] = {}
    while len(engine) or engine.ended:
        ended |= {e.key: e for e in engine.tick(MODELS)}
    assert ended["good"].result == alone(text([1], [4]))
    for key in ("at once", "later"):
        assert isinstance(ended[key].error, ValueError)


def test_a_kind_that_the_model_does_not_know_ends_its_own_batch_alone() -> None:
    engine = Engine()
    engine.admit("text", text([1], [4]))
    engine.admit("look", look(torch.ones(1, 3)))
    ended: dict[Any, Finished] = {}
    while len(engine):
        ended |= {e.key: e for e in engine.tick({Step: ahead})}
    assert ended["text"].error is None
    assert isinstance(ended["look"].error, KeyError)
