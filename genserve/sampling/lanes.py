"""One engine, several cores: one thread per core, each evaluating batches of its own.

Torch's own threads work inside every operation: they meet a hundred times per evaluation and wait each time
for the slowest. These threads never wait for each other, and everything else (samplers, replies, the host)
runs beside them. docs/benchmarks.md has the figures.
"""

import atexit
import logging
import os
import sys
import threading
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import torch

from genserve.sampling.engine import Answer, Batch, Engine, Evaluate, Finished, Sampler, evaluated
from genserve.sampling.speed import Speed

log = logging.getLogger(__name__)

SWITCH_S = 0.0003  # Python's own 5 ms are half an evaluation, for which a lane would wait


@dataclass
class Totals:
    """What lanes have done so far; all of it grows only."""

    batches: int = 0  # evaluated
    items: int = 0  # in them
    busy_s: float = 0.0  # in the model, summed over the lanes
    open_s: float = 0.0  # time with an open sampler, summed over the lanes: the most that busy_s can be
    request_s: float = 0.0  # time in which samplers were open, summed over them
    item_s: float = 0.0  # the same, summed over the items of their queries: a guided image counts twice
    lane_s: float = 0.0  # time, summed over the lanes


class Lanes:
    """Runs an engine in n threads of its own. Any thread may call its methods.

    Args:
        model: its calls are made without gradients, from several threads at a time; it may have `sizes`.
        n: cores to use. Torch's own threads are set to 1 in this process.
        budget: most items in one evaluation.

    Raises:
        ValueError: n < 1 or budget < 1.
    """

    def __init__(self, model: Evaluate, n: int, budget: int) -> None:
        self.n = n
        sizes: Sequence[int] = getattr(model, "sizes", ())
        self._model, self._engine = model, Engine(budget, n, sizes)
        self._speed = Speed()
        self._totals, self._counted = Totals(), monotonic()  # and when their times were last counted
        self._n_open = self._n_rows = 0  # open samplers and items since then
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # items wait, or a thread is to end
        self._ends = threading.Condition(lock)  # a sampler ended
        self._threads: set[threading.Thread] = set()  # more than n until one too many ends its evaluation
        self._began: dict[threading.Thread, float] = {}  # time.monotonic of the evaluation in each
        self._paused = self._closed = False
        torch.set_num_threads(1)
        sys.setswitchinterval(SWITCH_S)
        with self._work:
            self._start_threads()
        # a thread that comes back from torch after the interpreter's end aborts the process
        atexit.register(self.close)

    def resize(self, n: int) -> None:
        """Use this many cores from now on; an evaluation that is under way goes on.

        Raises:
            ValueError: n < 1.
        """
        with self._work:
            self._engine.resize(n)
            self.n = n
            self._count_time()
            if not self._closed:
                self._start_threads()
                self._work.notify_all()

    def pause(self) -> None:
        """Begin no further evaluation until `resume`; samplers may come and go."""
        with self._work:
            self._paused = True

    def resume(self) -> None:
        """Go on after `pause`."""
        with self._work:
            self._paused = False
            self._work.notify_all()

    @property
    def open(self) -> dict[Hashable, int]:
        """The samplers that have not ended: by key, how many items were evaluated for each."""
        with self._work:
            return self._engine.open

    @property
    def totals(self) -> Totals:
        """What was done up to now."""
        with self._work:
            self._count_time()
            return replace(self._totals)

    @property
    def rate(self) -> float:
        """Items per second that all lanes evaluate in full batches; 0.0 until it was measured."""
        with self._work:
            return self.n * self._speed.items_s

    def measure(self, query: Any, seconds: float) -> None:
        """Evaluate a query on every lane for this long, to know the `rate`; it is counted nowhere else.

        Call it before the first request.
        """
        for _ in range(self.n):
            self.admit(object(), _repeated(query, monotonic() + seconds))
        while self.open:
            self.wait(seconds)
        self.wait(0)
        with self._work:
            self._count_time()
            self._totals = Totals()

    def evaluating_since(self) -> float:
        """Return the time.monotonic at which the longest running evaluation began; 0.0 if none runs."""
        with self._work:
            return min(self._began.values(), default=0.0)

    def admit(self, key: Hashable, sampler: Sampler) -> None:
        """Open a sampler.

        Raises:
            ValueError: the key is in use.
        """
        with self._work:
            self._engine.admit(key, sampler)
            self._count_time()
            self._work.notify()
            self._tell_ends()

    def cancel(self, key: Hashable) -> bool:
        """Forget a sampler and its result; return whether it was open."""
        with self._work:
            was_open = self._engine.cancel(key)
            self._count_time()
            self._tell_ends()
            return was_open

    def cancel_open(self, key: Hashable) -> bool:
        """Forget a sampler unless it has ended: then its result stays; return whether it was open."""
        with self._work:
            if key not in self._engine.open:
                return False
            self._engine.cancel(key)
            self._count_time()
            self._tell_ends()
            return True

    def wait(self, seconds: float) -> list[Finished]:
        """Return the ends of samplers since the last call, or wait at most this long for one."""
        with self._ends:
            self._ends.wait_for(lambda: self._engine.ended or not len(self._engine), seconds)
            return self._engine.finished()

    def close(self) -> None:
        """Stop the threads, each after the evaluation that it is in. Open samplers stay as they are."""
        atexit.unregister(self.close)
        with self._work:
            self._closed = True
            self._work.notify_all()
            threads = list(self._threads)
        for thread in threads:
            thread.join()

    def _start_threads(self) -> None:
        while len(self._threads) < self.n:
            thread = threading.Thread(target=self._run, name="lane", daemon=True)
            thread.start()
            self._threads.add(thread)

    def _run(self) -> None:
        try:
            since = monotonic()
            while (turn := self._next(since)) is not None:
                batch, since = turn
                began = monotonic()
                answer = evaluated(self._model, batch)
                since = self._give(batch, answer, began, since)
        except BaseException:
            # a fault of ours: a worker without lanes would keep every client waiting; the host starts another
            log.critical("a lane broke down", exc_info=True)
            os._exit(1)

    def _next(self, since: float) -> tuple[Batch, float] | None:
        """Wait for a batch; return it and since when this thread is at it, None if it is to end.

        Args:
            since: when it had its last one done.
        """
        me = threading.current_thread()
        with self._work:
            while not self._closed and len(self._threads) <= self.n:
                if not self._paused and (batch := self._engine.take()) is not None:
                    if self._engine.waits:
                        self._work.notify()
                    self._began[me] = monotonic()
                    return batch, since
                self._work.wait()
                since = monotonic()
            self._count_time()
            self._threads.remove(me)
            return None

    def _give(self, batch: Batch, answer: Answer | Exception, began: float, since: float) -> float:
        """Give the samplers their answer; return the time."""
        done = monotonic()
        with self._work:
            del self._began[threading.current_thread()]
            self._totals.batches += 1
            self._totals.items += len(batch)
            self._totals.busy_s += done - began
            self._speed.add(len(batch), done - since)
            self._engine.give(batch, answer)
            self._count_time()
            self._tell_ends()
        return done

    def _tell_ends(self) -> None:
        if self._engine.ended or not len(self._engine):
            self._ends.notify_all()

    def _count_time(self) -> None:
        """Add the time since the last call. Call it whenever a sampler or a thread comes or goes."""
        now, totals = monotonic(), self._totals
        spent, self._counted = now - self._counted, now
        totals.lane_s += len(self._threads) * spent
        totals.open_s += len(self._threads) * spent if self._n_open else 0.0
        totals.request_s += self._n_open * spent
        totals.item_s += self._n_rows * spent
        self._n_open, self._n_rows = len(self._engine), self._engine.rows


def _repeated(query: Any, until: float) -> Sampler:
    """Yield a query until this time, and look at each answer: on a GPU it may not be there yet."""
    while monotonic() < until:
        answer: Any = yield query
        (answer if isinstance(answer, torch.Tensor) else answer[0]).sum().item()
