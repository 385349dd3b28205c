"""A job as its run directory has it: job.json beside the files of the run.

    job.json        what was asked for, and the state
    settings.json   all settings of the run, as the program reads them
    log.txt         what program and gateway wrote
    stop            asks the program to end at its next checkpoint (genserve/learning/checkpoint.py)

The directory is the truth: the queue only says whose turn it is.
"""

import fcntl
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any

from genserve.files import parsing, read_json, write_json
from genserve.learning.checkpoint import STOP
from genserve.operate.archive import NAME
from genserve.serving.fields import BadRequest, echo

OWN = ".jobs"  # folder of the queue and of the locks, among the runs


class State(str, Enum):
    """What becomes of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    EXPORTING = "exporting"
    REGISTERING = "registering"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = (State.DONE, State.FAILED, State.CANCELLED)
RESUMABLE = (State.FAILED, State.CANCELLED)
STOPPABLE = (State.RUNNING, State.EXPORTING)


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a client asked for, and how far it is.

    Args:
        id: also the name of its run directory.
        program, config, overrides: what trains, and with which settings.
        serve_as: the model's name once it has been trained; None if it is not to be served.
        phase: what is to be done, or goes on, once it has a turn: running, exporting or registering.
        created, began, ended: seconds since 1970; 0.0 for not yet.
        error: why it failed.
        version: of the model, once it is chosen; `before` is the version that it takes the place of.
    """

    id: str
    program: str
    config: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)
    serve_as: str | None = None
    state: State = State.QUEUED
    phase: State = State.RUNNING
    created: float = 0.0
    began: float = 0.0
    ended: float = 0.0
    error: str = ""
    version: str = ""
    before: str = ""


class Jobs:
    """The jobs below a folder of runs; every change is one of these methods, and none comes between two.

    Args:
        folder: of the runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def own(self) -> Path:
        """The folder of the queue and of the locks, which is made if it is missing."""
        path = self.folder / OWN
        path.mkdir(parents=True, exist_ok=True)
        return path

    def directory(self, id: str) -> Path:
        """Return the run directory of a job."""
        return self.folder / id

    def get(self, id: str) -> Job:
        """Return a job.

        Raises:
            BadRequest: there is none of this id, status 404.
        """
        path = self.directory(id) / "job.json"
        try:
            if re.fullmatch(NAME, id) and path.is_file():
                values = read_json(path)
                with parsing(path, "a job"):
                    return Job(**values | {name: State(values[name]) for name in ("state", "phase")})
        except (OSError, ValueError):  # a name that is too long, or a file that is no job
            pass
        raise BadRequest("id", f"there is no job {echo(id)}", status=404)

    def all(self) -> list[Job]:
        """Return the jobs, the newest first."""
        jobs = []
        for path in self.folder.glob("*/job.json"):
            try:
                jobs.append(self.get(path.parent.name))
            except BadRequest:
                continue
        return sorted(jobs, key=lambda job: (job.created, job.id), reverse=True)

    def open(self) -> list[Job]:
        """Return the jobs that have not ended, the oldest first."""
        return [job for job in reversed(self.all()) if job.state not in ENDED]

    def add(self, job: Job, settings: Mapping[str, Any]) -> Job:
        """Keep a new job, and return it.

        Raises:
            OSError: its directory cannot be written.
        """
        job = replace(job, created=time.time())
        with self._changing():
            self.directory(job.id).mkdir(parents=True)
            write_json(self.directory(job.id) / "settings.json", settings)
            self._write(job)
        return job

    # ---- what a client may change --------------------------------------------------------------------------

    def cancel(self, id: str) -> Job:
        """End a job that waits, or ask its program to end at the next checkpoint.

        Raises:
            BadRequest: it is too late for that, status 409.
        """
        with self._changing():
            job = self.get(id)
            if job.state == State.QUEUED:
                return self._write(replace(job, state=State.CANCELLED, ended=time.time()))
            if job.state in STOPPABLE:
                (self.directory(id) / STOP).touch()
            elif job.state != State.CANCELLED:
                raise BadRequest("id", f"the job is {job.state.value}: it cannot be cancelled", status=409)
            return job

    def resume(self, id: str) -> Job:
        """Put a job that was cancelled or that failed back among those that wait.

        Raises:
            BadRequest: it goes on, or is done, status 409.
        """
        with self._changing():
            job = self.get(id)
            if job.state not in RESUMABLE:
                allowed = ", ".join(state.value for state in RESUMABLE)
                raise BadRequest("id", f"the job is {job.state.value}: it cannot go on", allowed, 409)
            (self.directory(id) / STOP).unlink(missing_ok=True)
            # what is packed has a version that another job may have by now
            phase = State.EXPORTING if job.phase == State.REGISTERING else job.phase
            return self._write(replace(job, state=State.QUEUED, phase=phase, error="", ended=0.0))

    # ---- what the work changes -----------------------------------------------------------------------------

    def begin(self, id: str) -> Job:
        """Return a job whose turn it is, in the phase that comes next; one that has ended stays as it is."""
        return self._change(id, lambda job: replace(job, state=job.phase, began=job.began or time.time()))

    def advance(self, id: str, phase: State, **more: Any) -> Job:
        """Have the next phase of a job begin, or end it, unless it is to stop.

        Args:
            more: fields of Job.
        """

        def next_phase(job: Job) -> Job:
            if phase == State.DONE:
                return replace(job, state=phase, ended=time.time(), **more)
            return replace(job, state=phase, phase=phase, **more)

        return self._change(id, next_phase)

    def fail(self, id: str, error: str) -> Job:
        """End a job with an error, unless it is to stop."""
        return self._change(id, lambda job: replace(job, state=State.FAILED, error=error, ended=time.time()))

    def stops(self, id: str) -> float | None:
        """Return for how many seconds a job has been asked to stop; None if it has not been."""
        try:
            return time.time() - (self.directory(id) / STOP).stat().st_mtime
        except FileNotFoundError:
            return None

    def say(self, id: str, line: str) -> None:
        """Append a line to the log of a job."""
        with (self.directory(id) / "log.txt").open("a") as log:
            log.write(f"{line}\n")

    def _change(self, id: str, changed: Callable[[Job], Job]) -> Job:
        with self._changing():
            job = self.get(id)
            if job.state in ENDED:
                return job
            if job.state in STOPPABLE and self.stops(id) is not None:
                return self._write(replace(job, state=State.CANCELLED, ended=time.time()))
            return self._write(changed(job))

    def _write(self, job: Job) -> Job:
        write_json(self.directory(job.id) / "job.json", asdict(job))
        return job

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep every thread and every other gateway of this folder from changing a job."""
        with (self.own / "changes.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


def taken(path: Path) -> int | None:
    """Return the descriptor of a lock that the caller now has; None if another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def as_json(job: Job) -> dict[str, Any]:
    """Return a job as JSON has it."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(job)))
    return values
