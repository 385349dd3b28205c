"""One engine, several cores: one thread per core, each evaluating batches of its own.

Torch's own threads work inside every operation: they meet a hundred times per evaluation and wait each time
for the slowest. These threads never wait for each other, and everything else (samplers, replies, the host)
runs beside them. docs/benchmarks.md has the figures.
"""

import logging
import os
import sys
import threading
from collections.abc import Hashable
from time import perf_counter

import torch

from genserve.sampling.engine import Answer, Batch, Engine, Evaluate, Finished, evaluated
from genserve.sampling.samplers import Sampler

log = logging.getLogger(__name__)

SWITCH_S = 0.0003  # Python's own 5 ms are half an evaluation, for which a lane would wait


class Lanes:
    """Runs an engine in n threads of its own. Its methods are for one other thread.

    Args:
        model: called without gradients, from several threads at a time.
        n: cores to use. Torch's own threads are set to 1 in this process.
        budget: most images in one evaluation.

    Raises:
        ValueError: n < 1 or budget < 1.
    """

    def __init__(self, model: Evaluate, n: int, budget: int) -> None:
        self.n = n
        self.batches = self.images = 0  # evaluated so far
        self.busy_s = 0.0  # in the model, summed over the lanes
        self.open_s = 0.0  # n times the time with an open sampler: the most that busy_s can be
        self.request_s = 0.0  # time in which samplers were open, summed over them
        self._model, self._engine = model, Engine(budget, n)
        self._n_open, self._counted = 0, 0.0  # open samplers, and when the two sums were last counted
        lock = threading.Lock()
        self._work = threading.Condition(lock)  # images wait
        self._ends = threading.Condition(lock)  # a sampler ended
        self._closed = False
        torch.set_num_threads(1)
        sys.setswitchinterval(SWITCH_S)
        self._threads = [threading.Thread(target=self._run, name=f"lane-{k}", daemon=True) for k in range(n)]
        for thread in self._threads:
            thread.start()

    def admit(self, key: Hashable, sampler: Sampler) -> None:
        """Open a sampler.

        Raises:
            ValueError: the key is in use.
        """
        with self._work:
            self._engine.admit(key, sampler)
            self._count_open_time()
            self._work.notify()

    def cancel(self, key: Hashable) -> bool:
        """Forget a sampler and its result; return whether it was open."""
        with self._work:
            was_open = self._engine.cancel(key)
            self._count_open_time()
            return was_open

    def wait(self, seconds: float) -> list[Finished]:
        """Return the ends of samplers since the last call, or wait at most this long for one."""
        with self._ends:
            self._ends.wait_for(lambda: self._engine.ended or not len(self._engine), seconds)
            return self._engine.finished()

    def close(self) -> None:
        """Stop the threads. Open samplers stay as they are."""
        with self._work:
            self._closed = True
            self._work.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        try:
            while (batch := self._next()) is not None:
                began = perf_counter()
                answer = evaluated(self._model, batch)
                self._give(batch, answer, perf_counter() - began)
        except BaseException:
            # a fault of ours: a worker without lanes would keep every client waiting; the host starts another
            log.critical("a lane broke down", exc_info=True)
            os._exit(1)

    def _next(self) -> Batch | None:
        """Wait for a batch and return it; None once the lanes are closed."""
        with self._work:
            while not self._closed:
                if (batch := self._engine.take()) is not None:
                    if self._engine.waits:
                        self._work.notify()
                    return batch
                self._work.wait()
            return None

    def _give(self, batch: Batch, answer: Answer | Exception, spent: float) -> None:
        with self._work:
            self.batches += 1
            self.images += len(batch.query.x)
            self.busy_s += spent
            self._engine.give(batch, answer)
            self._count_open_time()
            if self._engine.ended:
                self._ends.notify()

    def _count_open_time(self) -> None:
        """Add the time since the last call. Call it whenever a sampler comes, goes or gets its answer."""
        now = perf_counter()
        if self._n_open:
            self.open_s += self.n * (now - self._counted)
            self.request_s += self._n_open * (now - self._counted)
        self._n_open, self._counted = len(self._engine), now
