"""Many samplers, one batched evaluation a tick.

Every open sampler has yielded a query. A tick gathers them all, whatever their kind, step, class or number of
images, asks the model once (in parts of at most `budget` images) and sends each sampler its own rows.
"""

from collections.abc import Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from genserve.diffusion import Model, Query, Sampler


@dataclass
class Finished:
    """How a sampler ended."""

    key: Hashable
    x_0: Tensor | None  # (B, C, H, W), or none where it failed
    error: Exception | None
    nfe: int  # network evaluations of each image, both halves of a guided one counted
    ticks: int  # evaluations it took part in


@dataclass
class _Open:
    sampler: Sampler
    query: Query
    rows: int = 0
    ticks: int = 0


class Engine:
    """Drives samplers together; who admits what and when is its caller's business.

    Args:
        model: evaluated without gradients; called with every tensor on the samplers' own device.
        budget: most images in one call of the model; bounds its memory.

    Raises:
        ValueError: budget < 1.
    """

    def __init__(self, model: Model, budget: int = 64) -> None:
        if budget < 1:
            raise ValueError(f"budget must be at least 1, got {budget}")
        self._model, self._budget = model, budget
        self._open: dict[Hashable, _Open] = {}
        self._finished: list[Finished] = []

    @property
    def busy(self) -> bool:
        """Whether a tick would do or return anything."""
        return bool(self._open or self._finished)

    def admit(self, key: Hashable, sampler: Sampler) -> None:
        """Take in a sampler under a key of the caller's; it joins the next tick.

        Raises:
            ValueError: the key is in use.
        """
        if key in self._open:
            raise ValueError(f"{key!r} is already open")
        try:
            self._open[key] = _Open(sampler, next(sampler))
        except StopIteration as end:
            self._finished.append(Finished(key, end.value, None, 0, 0))
        except Exception as error:
            self._finished.append(Finished(key, None, error, 0, 0))

    def tick(self) -> list[Finished]:
        """Evaluate every open query once and return the samplers that ended by it.

        A fault of the model ends every open sampler with that error; what is admitted next is not touched.
        """
        queries = [entry.query for entry in self._open.values()]
        if queries:
            together = Query(*(torch.cat(column) for column in zip(*queries, strict=True)))
            try:
                answer = self._evaluate(together)
            except Exception as error:
                self._finished += [Finished(key, None, error, 0, e.ticks) for key, e in self._open.items()]
                self._open.clear()
            else:
                parts = answer.split([len(query.x) for query in queries])
                for (key, entry), part in zip(list(self._open.items()), parts, strict=True):
                    self._send(key, entry, part)
        finished, self._finished = self._finished, []
        return finished

    @torch.no_grad()
    def _evaluate(self, query: Query) -> Tensor:
        parts = zip(*(column.split(self._budget) for column in query), strict=True)
        return torch.cat([self._model(*part) for part in parts])

    def _send(self, key: Hashable, entry: _Open, answer: Tensor) -> None:
        """Send a sampler its answer; what goes wrong inside it is its own end and nobody else's."""
        entry.rows += len(answer)
        entry.ticks += 1
        try:
            entry.query = entry.sampler.send(answer)
            return
        except StopIteration as end:
            x_0: Tensor = end.value
            ended = Finished(key, x_0, None, entry.rows // len(x_0), entry.ticks)
        except Exception as error:
            ended = Finished(key, None, error, 0, entry.ticks)
        del self._open[key]
        self._finished.append(ended)
