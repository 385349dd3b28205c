"""Queries as a server gets them: of every noise level, along the paths of drawings."""

from typing import Any

import torch

from genserve.runs.contract import Spec
from genserve.sampling.engine import Call
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Query, sample
from genserve.sampling.settings import Setting

SEED = 2**40  # no client is likely to ask for it
CLASSIC: dict[str, Any] = {"sampler": "ddim", "steps": 25, "schedule": "karras", "eta": 1.0}


def along_paths(spec: Spec, evaluate: Call, images: int) -> list[Query]:
    """Return the queries of some images, of classes from the first to the last, drawn as the model is served.

    A model with noise levels also draws by the classic 25 steps, which pass other levels.

    Args:
        evaluate: the trained network in fp32.
        images: of a path.
    """
    queries: list[Query] = []

    def recorded(*tensors: torch.Tensor) -> object:
        queries.append(Query(*tensors))
        return evaluate(*tensors)

    one_level = spec.sigma_min == spec.sigma_max
    ways: tuple[dict[str, Any], ...] = ({},) if one_level else ({}, CLASSIC)
    for k, fields in enumerate(ways):
        setting = Setting.of(spec.defaults, **fields)
        y = torch.arange(images) * (spec.no_class + 1) // images
        like = torch.empty(images, *spec.shape)
        noise = Streams(SEED + k, range(images))
        sample(setting.build(noise, like, y, energy=spec.kind.slopes, no_class=spec.no_class), recorded)
    return queries


def spread(queries: list[Query], n: int, no_class: int) -> Query:
    """Return n images of the queries, from the first to the last in even steps, of every class in turn.

    Args:
        no_class: stands for none, and is the last number; of more classes than images some are left out.
    """
    chosen = [queries[k * (len(queries) - 1) // (n - 1)] for k in range(n)]
    rows = (_row(query, k) for k, query in enumerate(chosen))
    query = Query(*map(torch.stack, zip(*rows, strict=True)))
    every = torch.arange(n) * (no_class + 1) // n if no_class >= n else torch.arange(n) % (no_class + 1)
    return query._replace(y=every)


def _row(query: Query, k: int) -> tuple[torch.Tensor, ...]:
    return tuple(column[k % len(column)] for column in query)
