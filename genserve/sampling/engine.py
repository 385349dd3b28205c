"""Many samplers, one batched evaluation.

Every open sampler has yielded a query: a named tuple of tensors, whose first dimension is the item. An item
is a noisy image, a picture to be classified, a text and its next token: whatever one row of the model's
answer belongs to. A batch takes items from the queries of one kind, whatever their sampler, step or number.
The model evaluates it once, and each sampler with a complete answer is sent its rows. A query larger than a
batch is answered in parts. What a sampler must remember from one evaluation to the next, such as a recurrent
state, it gets with an answer and sends with its next query.

    batch = engine.take()                   up to `budget` items
    engine.give(batch, model(*batch.query))

Several batches may be out at a time, one for each of `lanes` evaluators that work side by side. A batch takes
at most its lane's share of the open items, or a little more if the model has batch sizes of its own and that
is one of them. The engine is not thread-safe: `genserve.sampling.lanes` holds a
lock.

Queries are of one kind if they are of one class, and their items of the same shapes and types.

Fairness: while more items wait than a batch can hold, every open sampler is owed the same share of them.
Each sampler has a clock that counts the items taken for it, and a batch serves the smallest clocks first: the
smallest of all says of which kind it is. A newcomer starts at the engine's own clock, which counts the items
owed to each sampler so far. So a short request is done after its own few turns, however long the others are,
and a long one always advances, however many short ones come. Source: fair queueing, Demers et al. 1989, with
items for bits.
"""

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

# a tensor, or a named tuple of tensors such as an energy's Slope; their first dimension is the item
Answer = Tensor | tuple[Tensor, ...]
Sampler = Generator[Any, Any, Any]  # yields queries, is sent their answers, returns its result
Call = Callable[..., Answer]  # takes the tensors of a query
Evaluate = Call | Mapping[type, Call]  # one for all queries, or one for each class of them


@dataclass
class Finished:
    """The end of a sampler: its result or its error, and what it cost."""

    key: Hashable
    result: Any  # None if it failed
    error: Exception | None
    evaluated: int  # items, over all evaluations; both halves of a guided image are counted
    ticks: int  # batches it took part in
    waited: float  # seconds from its admission until its first items were taken


@dataclass(eq=False)  # an entry is itself: another one may have its key later
class _Open:
    key: Hashable
    sampler: Sampler
    query: Any
    clock: float  # items; the smallest clock is served first
    admitted: float
    waited: float = 0.0
    taken: int = 0  # of the query's items, in order
    answers: list[tuple[int, Answer, int]] = field(default_factory=list)  # a part's first item, answer, size
    evaluated: int = 0  # items in all
    ticks: int = 0

    def __post_init__(self) -> None:
        self.ask(self.query)

    def ask(self, query: Any) -> None:
        """Wait with a new query.

        Raises:
            ValueError: it has no items, or its tensors differ in their number.
        """
        self.query, self.taken, self.answers = query, 0, []
        self.rows, *others = map(len, query)  # its items
        if not self.rows or any(n != self.rows for n in others):
            raise ValueError(f"a {type(query).__name__} has tensors of {[self.rows, *others]} items")
        self.kind = (type(query), *((column.shape[1:], column.dtype) for column in query))


@dataclass(frozen=True)
class Batch:
    """The queries of one evaluation."""

    query: Any
    turns: list[tuple[_Open, int, int]]  # entry, first item of its query, number of items

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.query[0])


class Engine:
    """Drives samplers together. The caller admits them and evaluates the batches.

    Args:
        budget: most items in one batch; bounds its memory and its time.
        lanes: number of batches evaluated side by side.
        sizes: batches that the model evaluates as they are, rising; () for all.

    Raises:
        ValueError: budget < 1 or lanes < 1.
    """

    def __init__(self, budget: int = 64, lanes: int = 1, sizes: Sequence[int] = ()) -> None:
        if budget < 1:
            raise ValueError(f"budget must be at least 1, got {budget}")
        self.resize(lanes)
        self._budget, self._sizes = budget, sizes
        self._open: dict[Hashable, _Open] = {}
        self._finished: list[Finished] = []
        self._now = 0.0  # the engine's clock: items owed to each open sampler so far

    def __len__(self) -> int:
        """Return the number of open samplers."""
        return len(self._open)

    @property
    def open(self) -> dict[Hashable, int]:
        """The open samplers: by key, how many items were evaluated for each."""
        return {key: entry.evaluated for key, entry in self._open.items()}

    @property
    def rows(self) -> int:
        """Items in one query of every open sampler; a guided one counts each of its images twice."""
        return sum(entry.rows for entry in self._open.values())

    @property
    def waits(self) -> bool:
        """Whether an item waits to be taken."""
        return any(entry.taken < entry.rows for entry in self._open.values())

    @property
    def ended(self) -> bool:
        """Whether `finished` has a sampler to return."""
        return bool(self._finished)

    def resize(self, lanes: int) -> None:
        """Share the open items among this many evaluators from now on.

        Raises:
            ValueError: lanes < 1.
        """
        if lanes < 1:
            raise ValueError(f"lanes must be at least 1, got {lanes}")
        self._lanes = lanes

    def admit(self, key: Hashable, sampler: Sampler) -> None:
        """Open a sampler under a key of the caller's; it joins the next batch.

        Raises:
            ValueError: the key is in use.
        """
        if key in self._open:
            raise ValueError(f"{key!r} is already open")
        try:
            entry = _Open(key, sampler, next(sampler), self._now, perf_counter())
        except StopIteration as end:
            self._finished.append(Finished(key, end.value, None, 0, 0, 0.0))
        except Exception as error:
            self._finished.append(Finished(key, None, error, 0, 0, 0.0))
        else:
            self._open[key] = entry

    def cancel(self, key: Hashable) -> bool:
        """Forget a sampler, its items that are out and its result; return whether it was open."""
        self._finished = [ended for ended in self._finished if ended.key != key]
        entry = self._open.pop(key, None)
        if entry is not None:
            entry.sampler.close()
        return entry is not None

    def take(self) -> Batch | None:
        """Return the items to evaluate next; None if no item waits."""
        waiting = [entry for entry in self._open.values() if entry.taken < entry.rows]
        if not waiting:
            return None
        room = min(self._budget, self._share())
        turns: list[tuple[_Open, int, int]] = []
        waiting.sort(key=lambda entry: entry.clock)  # stable: first come, first served
        for entry in waiting:
            if entry.kind != waiting[0].kind:
                continue
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
        return Batch(type(waiting[0].query)(*map(torch.cat, columns)), turns)

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

    def _share(self) -> int:
        """Return a lane's share of the items, or the size above it if the last lane still gets half of it."""
        rows, lanes = self.rows, self._lanes
        share = -(-rows // lanes)
        size = next((size for size in self._sizes if size >= share), share)
        return size if rows - (lanes - 1) * size >= size / 2 else share

    def _keep_time(self, waiting: list[_Open], turns: list[tuple[_Open, int, int]]) -> None:
        """Move the clocks for a batch. If it holds every waiting item, all clocks are set equal."""
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
            entry.ask(entry.sampler.send(parts[0] if len(parts) == 1 else _joined(parts)))
        except StopIteration as end:
            self._end(entry, end.value, None)
        except Exception as error:
            self._end(entry, None, error)

    def _end(self, entry: _Open, result: Any, error: Exception | None) -> None:
        del self._open[entry.key]
        self._finished.append(Finished(entry.key, result, error, entry.evaluated, entry.ticks, entry.waited))


def evaluated(model: Evaluate, batch: Batch) -> Answer | Exception:
    """Return the model's answer to a batch, without gradients, or the exception that it raised."""
    try:
        with torch.no_grad():
            call = model[type(batch.query)] if isinstance(model, Mapping) else model
            return call(*batch.query)
    except Exception as error:
        return error


def _rows(query: Any, first: int, n: int) -> Sequence[Tensor]:
    """Return n items of a query; the query itself if it has no others."""
    columns: tuple[Tensor, ...] = query
    return columns if n == len(columns[0]) else [column[first : first + n] for column in columns]


def _split(answer: Answer, sizes: Sequence[int]) -> Sequence[Answer]:
    """Return an answer in parts of consecutive items, of these sizes."""
    if isinstance(answer, Tensor):
        return answer.split_with_sizes(list(sizes))
    columns = (column.split_with_sizes(list(sizes)) for column in answer)
    return [like(answer, part) for part in zip(*columns, strict=True)]


def _joined(parts: Sequence[Answer]) -> Answer:
    """Return the parts of an answer as one."""
    tensors = [part for part in parts if isinstance(part, Tensor)]
    if tensors:
        return torch.cat(tensors)
    return like(parts[0], [torch.cat(column) for column in zip(*parts, strict=True)])


def like(answer: Answer, columns: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return columns as a tuple of the answer's own type; a sampler reads a named one by name."""
    made: tuple[Tensor, ...] = getattr(answer, "_make", tuple)(columns)
    return made
