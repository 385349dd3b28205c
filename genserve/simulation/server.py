"""One server in virtual time: its own engine, admission and visits of the host, with measured times.

The rules are the real ones: `Engine` makes the batches, `refused` lets requests in, `Slices` says how long a
visit lasts. What is modelled here is what they meet: lanes that take a measured time for an evaluation, cores
that have other work to do as well, a host with a queue, and workers that share it.

Left out: the drawing itself, the network between client and server, clients that hang up, streams.
"""

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import simpy
import torch

from genserve.sampling.engine import Batch, Engine
from genserve.sampling.samplers import Query, Sampler
from genserve.sampling.speed import MEASURED_S, Speed
from genserve.serving.admission import refused
from genserve.serving.hosts.anchors import SHARE_S
from genserve.serving.hosts.visits import Slices, worth_a_visit
from genserve.simulation.machine import Cores, Shape, Totals
from genserve.simulation.times import Times
from genserve.simulation.traffic import Arrival

Steps = Generator[simpy.Event, Any, None]  # a process of simpy
ANSWERED, REFUSED, LATE = 200, 503, 504
_WIDTH = 0  # pixels of an image: the engine only counts them


@dataclass(eq=False)
class Job:
    """A request in a server.

    Args:
        over: is called once, with the status of the answer.
    """

    arrival: Arrival
    over: Callable[["Job", int], None]
    at: float = 0.0  # when its worker let it in


class Server:
    """A host with its queue and workers.

    Args:
        env: the virtual time.
        shape: how it runs.
        times: of its machine.
    """

    def __init__(self, env: simpy.Environment, shape: Shape, times: Times) -> None:
        self.env, self.shape, self.times = env, shape, times
        self.totals = Totals()
        self.cores = Cores(shape.cores, times)
        self.queue: deque[Job] = deque()
        self.came = env.event()  # succeeds when a request comes
        self.workers = [Worker(self) for _ in range(shape.workers)]

    def ask(self, job: Job) -> None:
        """Send a request; its `over` is called when the answer has come back, maybe at once."""
        self.work(self.times.request_core_ms / 1000)
        if len(self.queue) >= self.shape.queue:
            job.over(job, REFUSED)
            return
        self.queue.append(job)
        came, self.came = self.came, self.env.event()
        came.succeed()

    def work(self, seconds: float) -> None:
        """Do other work than evaluations."""
        self.cores.owe(seconds)
        self.totals.cpu_s += seconds

    @property
    def open_images(self) -> int:
        """Images of the requests that its workers have open."""
        return sum(worker.engine.rows for worker in self.workers)

    def counted(self) -> Totals:
        """Return what was done up to now."""
        for worker in self.workers:
            worker.count_time()
        return self.totals


class Worker:
    """A worker of a server: an engine, lanes, and a host that visits it.

    Args:
        server: whose queue and cores it uses.
    """

    def __init__(self, server: Server) -> None:
        self._server, self._env = server, server.env
        shape = server.shape
        self.engine = Engine(shape.budget, shape.lanes)
        self._lanes = shape.lanes
        self._speed = Speed()
        full_s = server.times.evaluation_s(shape.budget, shape.lanes * shape.workers)
        while not self._speed.items_s:  # as a real one measures itself before its first request
            self._speed.add(shape.budget, min(full_s, MEASURED_S))
        self._evaluating = 0
        self._open: dict[int, Job] = {}
        self._ended: list[Job] = []
        self._enough: tuple[int, simpy.Event] | None = None  # answers that end this visit, and its end
        self._slices = Slices(lambda: float(self._env.now))
        self._counted, self._rows = 0.0, 0
        self._env.process(self._serve())

    @property
    def busy(self) -> bool:
        """Whether requests are open."""
        return bool(self._open)

    def count_time(self) -> None:
        """Add the time since the last call to the totals. Called whenever a request comes or goes."""
        spent, self._counted = self._env.now - self._counted, self._env.now
        self._server.totals.lane_s += self._lanes * spent
        self._server.totals.item_s += self._rows * spent
        self._rows = self.engine.rows

    def _serve(self) -> Steps:
        """The host's loop over this worker."""
        away_s, answer_s = (ms / 1000 for ms in (self._server.times.host_ms, self._server.times.answer_ms))
        while True:
            if not self._open:
                yield from self._idle()
                yield self._env.timeout(away_s / 2)
            slice_s = self._slices.enter()
            answers = self._take_in()
            if self._open:
                self._enough = (worth_a_visit(len(self._open)), self._env.event())
                self._tell_enough()
                yield self._env.timeout(slice_s) | self._enough[1]
                self._enough = None
                answers += self._handed_out()
                yield self._env.timeout(answer_s * len(answers))
            self._slices.leave(bool(self._open), bool(answers))
            # on its way back the host sends the answers, and then it comes again
            yield self._env.timeout(away_s / 2)
            for job, status in answers:
                job.over(job, status)
            if self._open:
                self._server.work(away_s)
                yield self._env.timeout(away_s / 2)

    def _idle(self) -> Steps:
        """Wait for a request: one idle worker in the queue if none is busy, the others look now and then."""
        workers = self._server.workers
        while not self._server.queue:
            if any(worker.busy for worker in workers):
                yield self._env.timeout(SHARE_S)
                continue
            yield self._server.came
            if self is not next(worker for worker in workers if not worker.busy):
                yield self._env.timeout(SHARE_S)

    def _take_in(self) -> list[tuple[Job, int]]:
        """Let in what waits in the host's queue; return those that are refused."""
        shape, queue = self._server.shape, self._server.queue
        turned_away: list[tuple[Job, int]] = []
        while queue and len(self._open) + len(turned_away) < shape.places:
            job = queue.popleft()
            done = self.engine.open
            left = [
                other.arrival.work - done.get(key, other.arrival.work) for key, other in self._open.items()
            ]
            rate = self._lanes * self._speed.items_s
            if refused(job.arrival.work, left, rate, shape.deadline_s, shape.places):
                turned_away.append((job, REFUSED))
                continue
            job.at = self._env.now
            self._open[id(job)] = job
            self.engine.admit(id(job), _sampler(job.arrival))
            self.count_time()
            self._start_lanes()
        return turned_away

    def _handed_out(self) -> list[tuple[Job, int]]:
        """Return what has ended, and what is given up."""
        answers = [(job, ANSWERED) for job in self._ended]
        self._ended = []
        latest = self._env.now - self._server.shape.deadline_s
        for job in [job for job in self._open.values() if job.at < latest]:
            if self.engine.cancel(id(job)):
                answers.append((job, LATE))
        for job, _ in answers:
            del self._open[id(job)]
        self.count_time()
        return answers

    def _start_lanes(self) -> None:
        while self._evaluating < self._lanes and (batch := self.engine.take()) is not None:
            self._evaluating += 1
            self._env.process(self._lane(batch))

    def _lane(self, batch: Batch | None) -> Steps:
        """Evaluate one batch after the other until none waits."""
        totals = self._server.totals
        while batch is not None:
            images = len(batch)
            seconds = self._server.cores.begin(images)
            yield self._env.timeout(seconds)
            self._server.cores.end()
            self._speed.add(images, seconds)
            totals.batches += 1
            totals.items += images
            totals.busy_s += seconds
            totals.cpu_s += self._server.times.evaluation_s(images, self._server.shape.cores)
            self.engine.give(batch, batch.query.x)
            self.count_time()
            for ended in self.engine.finished():
                if ended.key in self._open:
                    self._ended.append(self._open[ended.key])
            self._tell_enough()
            batch = self.engine.take()
            if batch is not None and self.engine.waits:
                self._start_lanes()
        self._evaluating -= 1

    def _tell_enough(self) -> None:
        if self._enough is None or self._enough[1].triggered:
            return
        if len(self._ended) >= self._enough[0] or len(self._ended) == len(self._open):
            self._enough[1].succeed()


def _sampler(arrival: Arrival) -> Sampler:
    """Ask for every image as often as there are steps."""
    x = torch.empty(arrival.images, _WIDTH)
    query = Query(x, x, x)
    for _ in range(arrival.steps):
        yield query
    return x
