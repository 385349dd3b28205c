"""A crowd of small requests for an engine, of every sampler, on a model in closed form."""

import time

import torch
from hypothesis import strategies as st
from torch import Tensor

from genserve.sampling.engine import Batch, Engine, Evaluate, Finished, evaluated
from genserve.sampling.lanes import Lanes
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Query, Sampler
from genserve.sampling.schedules import karras
from genserve.sampling.solvers import SAMPLERS, sampler_named
from genserve.sampling.wrappers import guided

NO_CLASS = 3


def model(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """Return E[x_0 | x_t] of a Gaussian around the class, row by row: all errors are the engine's."""
    mean = torch.where(y == NO_CLASS, 1.0, y).view(-1, 1, 1, 1)
    return mean + 0.04 / (0.04 + sigma.view(-1, 1, 1, 1) ** 2) * (x - mean)


def request(seed: int, n: int, steps: int, name: str, guidance: float) -> Sampler:
    noise = Streams(seed, range(n))
    x_t = 80 * noise(torch.empty(n, 1, 2, 2))
    inner = sampler_named(name, x_t, karras(steps), torch.arange(n) % 3, eta=0.0, noise=noise)
    return inner if guidance == 1 else guided(inner, guidance, NO_CLASS)


def steady(n: int, ticks: int) -> Sampler:
    """Yield a query of n images, this many times."""
    x = torch.zeros(n, 1, 2, 2)
    for _ in range(ticks):
        yield Query(x, torch.ones(n), torch.zeros(n, dtype=torch.long))
    return x


REQUESTS = st.lists(
    st.tuples(
        st.integers(0, 5),
        st.integers(1, 5),
        st.integers(1, 12),
        st.sampled_from(SAMPLERS),
        st.sampled_from([1.0, 2.5]),
    ),
    min_size=1,
    max_size=6,
)


def collect(lanes: Lanes, n: int) -> list[Finished]:
    """Return the ends of n samplers, whichever come first."""
    ended: list[Finished] = []
    deadline = time.monotonic() + 20
    while len(ended) < n:
        assert time.monotonic() < deadline, f"{n - len(ended)} never ended"
        ended += lanes.wait(1)
    return ended


def driven(engine: Engine, model: Evaluate, lanes: int, budget: int, order: list[int]) -> list[Finished]:
    """Let evaluators take batches and give them back in this order, and return the ends of all samplers."""
    out: list[Batch] = []
    step = 0
    while len(engine):
        while len(out) < lanes and (batch := engine.take()):
            assert len(batch) <= budget
            out.append(batch)
        batch = out.pop(order[step % len(order)] % len(out))
        engine.give(batch, evaluated(model, batch))
        step += 1
    return engine.finished()
