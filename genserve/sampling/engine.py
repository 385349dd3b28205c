"""Many samplers, one batched evaluation.

Every open sampler has yielded a query. A batch takes images from the queries, whatever their sampler, step,
class or number. The model evaluates it once, and each sampler with a complete answer is sent its rows. A
query larger than a batch is answered in parts.

    batch = engine.take()                   up to `budget` images
    engine.give(batch, model(*batch.query))

Several batches may be out at a time, one for each of `lanes` evaluators that work side by side. A batch takes
at most its lane's share of the open images. The engine is not thread-safe: `genserve.sampling.lanes` holds a
lock.

Fairness: while more images wait than a batch can hold, every open sampler is owed the same share of them.
Each sampler has a clock that counts the images taken for it, and a batch serves the smallest clocks first. A
newcomer starts at the engine's own clock, which counts the images owed to each sampler so far. So a short
request is done after its own few turns, however long the others are, and a long one always advances, however
many short ones come. Source: fair queueing, Demers et al. 1989, with images for bits.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from genserve.sampling.samplers import Query, Sampler

# a denoiser's, or a named tuple such as an energy's Slope; the first dimension of every tensor is the image
Answer = Tensor | tuple[Tensor, ...]
Evaluate = Callable[[Tensor, Tensor, Tensor], Answer]  # (x, sigma, y) as in Query


@dataclass
class Finished:
    """The end of a sampler: its result or its error, and what it cost."""

    key: Hashable
    x_0: Tensor | None  # (B, C, H, W); None if it failed
    error: Exception | None
    nfe: int  # network evaluations of each image, both halves of a guided one counted
    ticks: int  # batches it took part in
    waited: float  # seconds from its admission until its first images were taken


@dataclass(eq=False)  # an entry is itself: another one may have its key later
class _Open:
    key: Hashable
    sampler: Sampler
    query: Query
    rows: int  # images of the query
    clock: float  # images; the smallest clock is served first
    admitted: float
    waited: float = 0.0
    taken: int = 0  # of the query's images, in order
    answers: list[tuple[int, Answer, int]] = field(default_factory=list)  # a part's first image, answer, size
    evaluated: int = 0  # images in all
    ticks: int = 0


@dataclass(frozen=True)
class Batch:
    """The queries of one evaluation."""

    query: Query
    turns: list[tuple[_Open, int, int]]  # entry, first image of its query, number of images


class Engine:
    """Drives samplers together. The caller admits them and evaluates the batches.

    Args:
        budget: most images in one batch; bounds its memory and its time.
        lanes: number of batches evaluated side by side.

    Raises:
        ValueError: budget < 1 or lanes < 1.
    """

    def __init__(self, budget: int = 64, lanes: int = 1) -> None:
        if budget < 1 or lanes < 1:
            raise ValueError(f"budget and lanes must be at least 1, got {budget} and {lanes}")
        self._budget, self._lanes = budget, lanes
        self._open: dict[Hashable, _Open] = {}
        self._finished: list[Finished] = []
        self._now = 0.0  # the engine's clock: images owed to each open sampler so far

    def __len__(self) -> int:
        """Return the number of open samplers."""
        return len(self._open)

    @property
    def waits(self) -> bool:
        """Whether an image waits to be taken."""
        return any(entry.taken < entry.rows for entry in self._open.values())

    @property
    def ended(self) -> bool:
        """Whether `finished` has a sampler to return."""
        return bool(self._finished)

    def admit(self, key: Hashable, sampler: Sampler) -> None:
        """Open a sampler under a key of the caller's; it joins the next batch.

        Raises:
            ValueError: the key is in use.
        """
        if key in self._open:
            raise ValueError(f"{key!r} is already open")
        try:
            query = next(sampler)
        except StopIteration as end:
            self._finished.append(Finished(key, end.value, None, 0, 0, 0.0))
        except Exception as error:
            self._finished.append(Finished(key, None, error, 0, 0, 0.0))
        else:
            self._open[key] = _Open(key, sampler, query, len(query.x), self._now, perf_counter())

    def cancel(self, key: Hashable) -> bool:
        """Forget a sampler, its images that are out and its result; return whether it was open."""
        self._finished = [ended for ended in self._finished if ended.key != key]
        entry = self._open.pop(key, None)
        if entry is not None:
            entry.sampler.close()
        return entry is not None

    def take(self) -> Batch | None:
        """Return the images to evaluate next; None if no image waits."""
        waiting = [entry for entry in self._open.values() if entry.taken < entry.rows]
        if not waiting:
            return None
        share = -(-sum(entry.rows for entry in self._open.values()) // self._lanes)
        room = min(self._budget, share)
        turns: list[tuple[_Open, int, int]] = []
        for entry in sorted(waiting, key=lambda entry: entry.clock):  # stable: first come, first served
            n = min(room, entry.rows - entry.taken)
            turns.append((entry, entry.taken, n))
            room -= n
            if not room:
                break
        self._keep_time(waiting, turns)
        columns = zip(*(_rows(entry.query, first, n) for entry, first, n in turns), strict=True)
        for entry, _, n in turns:
            if not entry.ticks:
                entry.waited = perf_counter() - entry.admitted
            entry.taken += n
            entry.evaluated += n
            entry.ticks += 1
        return Batch(Query(*(torch.cat(column) for column in columns)), turns)

    def give(self, batch: Batch, answer: Answer | Exception) -> None:
        """Send the model's answer to the samplers. An exception ends those of the batch; the others go on."""
        if isinstance(answer, Exception):
            for entry, *_ in batch.turns:
                if self._open.get(entry.key) is entry:
                    self._end(entry, None, answer)
            return
        parts = _split(answer, [n for *_, n in batch.turns])
        for (entry, first, n), part in zip(batch.turns, parts, strict=True):
            if self._open.get(entry.key) is entry:  # else it was cancelled meanwhile
                self._receive(entry, first, part, n)

    def finished(self) -> list[Finished]:
        """Return the ends of samplers since the last call."""
        finished, self._finished = self._finished, []
        return finished

    def tick(self, model: Evaluate) -> list[Finished]:
        """Evaluate one batch in this thread, without gradients, and return the samplers that have ended."""
        batch = self.take()
        if batch is not None:
            self.give(batch, evaluated(model, batch))
        return self.finished()

    def _keep_time(self, waiting: list[_Open], turns: list[tuple[_Open, int, int]]) -> None:
        """Move the clocks for a batch. If it holds every waiting image, all clocks are set equal."""
        if len(turns) == len(waiting) and all(first + n == entry.rows for entry, first, n in turns):
            for entry in waiting:
                entry.clock = self._now
            return
        self._now += sum(n for *_, n in turns) / len(self._open)
        for entry, _, n in turns:
            entry.clock += n

    def _receive(self, entry: _Open, first: int, part: Answer, n: int) -> None:
        """Store a sampler's rows, and send them once complete. Its exception ends this sampler only."""
        entry.answers.append((first, part, n))
        if sum(n for *_, n in entry.answers) < entry.rows:
            return
        # parts that were out together may come back in any order
        parts = [part for _, part, _ in sorted(entry.answers, key=lambda answer: answer[0])]
        try:
            entry.query = entry.sampler.send(parts[0] if len(parts) == 1 else _joined(parts))
        except StopIteration as end:
            self._end(entry, end.value, None)
        except Exception as error:
            self._end(entry, None, error)
        else:
            entry.rows, entry.taken, entry.answers = len(entry.query.x), 0, []

    def _end(self, entry: _Open, x_0: Tensor | None, error: Exception | None) -> None:
        del self._open[entry.key]
        nfe = 0 if x_0 is None else entry.evaluated // len(x_0)
        self._finished.append(Finished(entry.key, x_0, error, nfe, entry.ticks, entry.waited))


def evaluated(model: Evaluate, batch: Batch) -> Answer | Exception:
    """Return the model's answer to a batch, without gradients, or the exception that it raised."""
    try:
        with torch.no_grad():
            return model(*batch.query)
    except Exception as error:
        return error


def _rows(query: Query, first: int, n: int) -> Query:
    """Return n images of a query; the query itself if it has no others."""
    if n == len(query.x):
        return query
    return Query(*(column[first : first + n] for column in query))


def _split(answer: Answer, sizes: Sequence[int]) -> Sequence[Answer]:
    """Return an answer in parts of consecutive images, of these sizes."""
    if isinstance(answer, Tensor):
        return answer.split_with_sizes(list(sizes))
    columns = (column.split_with_sizes(list(sizes)) for column in answer)
    return [_like(answer, part) for part in zip(*columns, strict=True)]


def _joined(parts: Sequence[Answer]) -> Answer:
    """Return the parts of an answer as one."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if tensors:
        return torch.cat(tensors)
    return _like(parts[0], [torch.cat(column) for column in zip(*parts, strict=True)])


def _like(answer: Any, columns: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return columns as a named tuple of the answer's own type; a sampler reads it by name."""
    named: tuple[Tensor, ...] = answer._make(columns)
    return named
