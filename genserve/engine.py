"""Many samplers, one batched evaluation a tick.

Every open sampler has yielded a query. A tick takes images from the queries, whatever their sampler, step,
class or number, up to `budget` of them, asks the model once, and sends each sampler whose query is answered
in full its rows of the answer. A query larger than the budget is answered over several ticks.

Fairness: while more is asked than a tick can hold, every open sampler is owed the same share of the images.
Each has a clock that counts the images evaluated for it, and a tick serves the smallest clocks first. A
newcomer starts at the engine's own clock, which counts what everybody was owed so far. So a short request is
done after its own few turns, however long the others are, and a long one always advances, however many short
ones come. Source: fair queueing, Demers et al. 1989, with images for bits.
"""

from collections.abc import Hashable
from dataclasses import dataclass, field

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
    ticks: int  # ticks it took part in


@dataclass
class _Open:
    sampler: Sampler
    query: Query
    clock: float  # images, what decides whose turn it is
    rows: int = 0  # images evaluated for it
    ticks: int = 0
    answers: list[Tensor] = field(default_factory=list)  # to the first images of its query

    @property
    def answered(self) -> int:
        return sum(map(len, self.answers))


class Engine:
    """Drives samplers together; who admits what and when is its caller's business.

    Args:
        model: evaluated without gradients; called with every tensor on the samplers' own device.
        budget: most images in one call of the model; bounds its memory and how long a tick takes.

    Raises:
        ValueError: budget < 1.
    """

    def __init__(self, model: Model, budget: int = 64) -> None:
        if budget < 1:
            raise ValueError(f"budget must be at least 1, got {budget}")
        self._model, self._budget = model, budget
        self._open: dict[Hashable, _Open] = {}
        self._finished: list[Finished] = []
        self._now = 0.0  # the engine's clock: images that each open sampler was owed so far

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
            self._open[key] = _Open(sampler, next(sampler), self._now)
        except StopIteration as end:
            self._finished.append(Finished(key, end.value, None, 0, 0))
        except Exception as error:
            self._finished.append(Finished(key, None, error, 0, 0))

    def cancel(self, key: Hashable) -> bool:
        """Forget an open sampler; return whether there was one."""
        entry = self._open.pop(key, None)
        if entry is not None:
            entry.sampler.close()
        return entry is not None

    def tick(self) -> list[Finished]:
        """Evaluate at most `budget` images and return the samplers that ended by it.

        A fault of the model ends the samplers whose images it was asked about; the others go on.
        """
        turns = self._turns()
        if turns:
            self._keep_time(turns)
            parts = [Query(*(t[e.answered : e.answered + n] for t in e.query)) for _, e, n in turns]
            try:
                with torch.no_grad():
                    answer = self._model(*(torch.cat(column) for column in zip(*parts, strict=True)))
            except Exception as error:
                for key, entry, _ in turns:
                    del self._open[key]
                    self._finished.append(Finished(key, None, error, 0, entry.ticks))
            else:
                for (key, entry, _), rows in zip(turns, answer.split([n for *_, n in turns]), strict=True):
                    self._receive(key, entry, rows)
        finished, self._finished = self._finished, []
        return finished

    def _turns(self) -> list[tuple[Hashable, _Open, int]]:
        """Return who is served in this tick, and with how many images: the smallest clocks first."""
        room, turns = self._budget, []
        for key, entry in sorted(self._open.items(), key=lambda item: item[1].clock):  # stable: first come
            if not room:
                break
            n = min(room, len(entry.query.x) - entry.answered)
            turns.append((key, entry, n))
            room -= n
        return turns

    def _keep_time(self, turns: list[tuple[Hashable, _Open, int]]) -> None:
        """Move the clocks for a tick; while it has room for everybody, nobody gains or loses."""
        if len(turns) == len(self._open) and all(e.answered + n == len(e.query.x) for _, e, n in turns):
            for entry in self._open.values():
                entry.clock = self._now
            return
        self._now += sum(n for *_, n in turns) / len(self._open)
        for _, entry, n in turns:
            entry.clock += n

    def _receive(self, key: Hashable, entry: _Open, rows: Tensor) -> None:
        """Give a sampler its rows; what goes wrong inside it is its own end and nobody else's."""
        entry.answers.append(rows)
        entry.rows += len(rows)
        entry.ticks += 1
        if entry.answered < len(entry.query.x):
            return
        answer = entry.answers[0] if len(entry.answers) == 1 else torch.cat(entry.answers)
        entry.answers = []
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
