"""A model of TorchServe's continuous batching: its queue, its lock, its worker threads.

A worker's thread without jobs waits in the queue and holds the model's lock; with jobs it takes what is
there. Workers are real processes, of small_worker.py. Source: ContinuousBatching.java, Model.java of 0.12.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Listener
from pathlib import Path

from real_server import ROOT

from genserve.crew import FILE, Crew, Member

BATCH = 64
DIED = 500


@dataclass
class Job:
    """A request, or an anchor."""

    token: str | None
    seconds: float
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    status: int = 0
    worker: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def end(self, status: int) -> None:
        self.status = status
        self.ended.set()


class SmallHost:
    """The host of one model. Use it as a context manager.

    Args:
        folder: for the table and the socket; its path is short.
    """

    def __init__(self, folder: Path) -> None:
        self.table, self._address = folder / FILE, str(folder / "host")
        self._queue: queue.Queue[Job] = queue.Queue()
        self._lock = threading.Lock()  # of the model
        self._listener = Listener(self._address, "AF_UNIX", backlog=64)
        self.workers: dict[int, subprocess.Popen[bytes]] = {}
        self._over: dict[int, threading.Event] = {}  # threads of workers that have ended
        self._served: set[int] = set()  # workers that came to the host
        self._next = 9000
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "SmallHost":
        return self

    def __exit__(self, *_: object) -> None:
        for number in list(self.workers):
            self.kill(number)
        self._listener.close()

    def ask(self, seconds: float, patience: float) -> Job:
        """Send a request and wait for its answer.

        Raises:
            AssertionError: there is none in time.
        """
        job = Job(None, seconds)
        self._queue.put(job)
        assert job.ended.wait(patience), f"no answer after {patience} s; workers: {self.members()}"
        return job

    def start(self) -> int:
        """Start a worker; return its number."""
        number, self._next = self._next, self._next + 1
        program = ROOT / "tests" / "helpers" / "small" / "small_worker.py"
        command = [sys.executable, str(program), self._address, str(self.table), str(number)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.workers[number] = subprocess.Popen(command, env=environment)
        self._over[number] = threading.Event()
        return number

    def kill(self, number: int) -> None:
        """Kill a worker: what it has open fails, and what its thread takes until it notices."""
        process = self.workers.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if number in self._served:
            self._over[number].wait()

    def members(self) -> list[Member]:
        """Return the living workers as the table has them; none while there is no table."""
        with contextlib.suppress(FileNotFoundError):
            crew = Crew(self.table)
            try:
                return crew.members()
            finally:
                crew.close()
        return []

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        with contextlib.suppress(EOFError, OSError), connection:
            what, value = connection.recv()
            if what == "worker":
                self._run(connection, value)
                return
            job = Job(value, 0.0)
            self._queue.put(job)
            job.ended.wait()
            connection.send(job.status)

    def _run(self, connection: Connection, number: int) -> None:
        """The thread of a worker."""
        jobs: dict[str, Job] = {}
        self._served.add(number)
        try:
            while True:
                self._poll(jobs, number)
                connection.send([(job.key, job.token, job.seconds) for job in jobs.values()])
                for key, status in connection.recv().items():
                    jobs.pop(key).end(status)
        finally:
            for job in jobs.values():
                job.worker = number
                job.end(DIED)
            self._over[number].set()

    def _poll(self, jobs: dict[str, Job], number: int) -> None:
        """Take what is in the queue, or wait for it while holding the lock.

        Raises:
            EOFError: the worker is dead; its thread is interrupted.
        """
        while not self._lock.acquire(timeout=0.01):
            self._interrupt(number)
        try:
            while not jobs:
                self._interrupt(number)
                with contextlib.suppress(queue.Empty):
                    job = self._queue.get(timeout=0.01)
                    jobs[job.key] = job
            with contextlib.suppress(queue.Empty):
                while len(jobs) < BATCH:
                    job = self._queue.get_nowait()
                    jobs[job.key] = job
        finally:
            self._lock.release()

    def _interrupt(self, number: int) -> None:
        if number not in self.workers:
            raise EOFError


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until a function returns something true.

    Raises:
        AssertionError: it does not.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not come to pass"
        time.sleep(0.005)
