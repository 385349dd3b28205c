"""Do a job: train, pack, register. Each phase can be cut off at any point, and is begun again."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from genserve.files import read_json
from genserve.gateway.jobs.record import Job, Jobs, State, taken
from genserve.gateway.jobs.serving import serve, successor
from genserve.gateway.options import Options
from genserve.operate.api import ManagementError
from genserve.operate.logs import end_of

NICE = 10  # a tenth of a processor's share, while something that is served wants it
OUT_OF_MEMORY = 500  # of 1000: the system ends a training before it ends a server
TRIES = 5  # of a program that something else kills
LOOK_S = 0.2
STOP_S = (
    600.0  # that a program may take to its next checkpoint; then it is ended, and goes on from the last one
)
END_S = 10.0  # that it may take to end by SIGTERM
AWAY_S = 600.0  # that a server, or a model that another command changes, is waited for
PASSING = (503, 409)  # status of what may be better later
Result = TypeVar("Result")


class JobError(Exception):
    """A job cannot be done; the text is for the person who asked for it."""


class ClosingError(Exception):
    """The gateway ends, and the job goes on when it is back."""


class Work:
    """What the queue's turn comes to.

    Args:
        options: of the gateway.
        jobs: below its folder of runs.
    """

    def __init__(self, options: Options, jobs: Jobs) -> None:
        self.options, self.jobs = options, jobs
        self.closing = threading.Event()
        self._phases: dict[State, Callable[[Job, tuple[int, ...]], Job]] = {
            State.RUNNING: self._train,
            State.EXPORTING: self._export,
            State.REGISTERING: self._register,
        }

    def run(self, id: str) -> None:
        """Do what is left of a job, once no other one is being done on this machine."""
        try:
            with self._turn(id) as locks:
                if locks is None:
                    return
                job = self.jobs.begin(id)
                while phase := self._phases.get(job.state):
                    job = phase(job, locks)
        except ClosingError:
            return
        except (JobError, ManagementError, OSError, ValueError) as error:
            self.jobs.say(id, f"error: {error}")
            self.jobs.fail(id, str(error))

    def free(self, id: str) -> bool:
        """Return whether no gateway and no program has this job in hand."""
        descriptor = taken(self._lock_of(id))
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is not None

    def _lock_of(self, id: str) -> Path:
        return self.jobs.directory(id) / ".lock"

    @contextmanager
    def _turn(self, id: str) -> Iterator[tuple[int, ...] | None]:
        """Wait for the lock of this machine, then take that of the job; None if another machine has it.

        A program inherits both, so a gateway that is killed does not free them before its program ends.
        """
        with contextlib.ExitStack() as stack:
            while (machine := taken(self.jobs.own / f"{socket.gethostname()}.lock")) is None:
                self._look(LOOK_S)
            stack.callback(os.close, machine)
            own = taken(self._lock_of(id))
            if own is None:
                yield None
                return
            stack.callback(os.close, own)
            yield machine, own

    def _look(self, seconds: float) -> None:
        """Wait, unless the gateway ends."""
        if self.closing.wait(seconds):
            raise ClosingError

    # ---- the phases ----------------------------------------------------------------------------------------

    def _train(self, job: Job, locks: tuple[int, ...]) -> Job:
        settings = self.jobs.directory(job.id) / "settings.json"
        flags = ["--config", settings, "--name", job.id, "--output", self.jobs.folder]
        if "threads" in read_json(settings):
            flags += ["--threads", self.options.threads]
        self._call(job, locks, ["train", job.program, *flags])
        return self.jobs.advance(job.id, State.EXPORTING if job.serve_as else State.DONE)

    def _export(self, job: Job, locks: tuple[int, ...]) -> Job:
        assert job.serve_as
        name, store = job.serve_as, self._store(job)
        if self.jobs.stops(job.id) is None:
            version, before = self._patiently(job, lambda: successor(self.options.server, name))
            flags = ["--run", self.jobs.directory(job.id), "--name", name, "--version", version]
            self._call(job, locks, ["archive", *flags, "--model-store", store])
            return self.jobs.advance(job.id, State.REGISTERING, version=version, before=before)
        return self.jobs.advance(job.id, State.REGISTERING)

    def _store(self, job: Job) -> Path:
        return self.jobs.directory(job.id) / "archive"

    def _register(self, job: Job, locks: tuple[int, ...]) -> Job:
        assert job.serve_as
        archive = self._store(job) / f"{job.serve_as}.mar"
        name, say = job.serve_as, lambda line: self.jobs.say(job.id, line)
        self._patiently(job, lambda: serve(self.options.server, name, job.version, job.before, archive, say))
        shutil.rmtree(self._store(job), ignore_errors=True)
        return self.jobs.advance(job.id, State.DONE)

    def _patiently(self, job: Job, ask: Callable[[], Result]) -> Result:
        """Return what the server answers, when it is back if it is away.

        Raises:
            ManagementError: it refuses, or is away for too long.
            ClosingError: the gateway ends.
        """
        until = time.monotonic() + AWAY_S
        while True:
            try:
                return ask()
            except ManagementError as error:
                if error.status not in PASSING or time.monotonic() > until:
                    raise
                self.jobs.say(job.id, f"trying again: {error}")
            self._look(5.0)

    # ---- programs ------------------------------------------------------------------------------------------

    def _call(self, job: Job, locks: tuple[int, ...], words: list[object]) -> None:
        """Run a command of genserve's to its end, or until it has stopped as it was asked to.

        Raises:
            JobError: it fails, or is killed again and again.
            ClosingError: the gateway ends.
        """
        for _ in range(TRIES):
            code = self._once(job, locks, words)
            if code == 0 or self.jobs.stops(job.id) is not None:
                return
            if code > 0:
                raise JobError(self._last_words(job))
            self.jobs.say(job.id, f"{words[0]} was ended by {signal.Signals(-code).name}")
        raise JobError(f"{words[0]} was killed {TRIES} times: is there enough memory?")

    def _once(self, job: Job, locks: tuple[int, ...], words: list[object]) -> int:
        """Run a command at a low priority and return its status; a negative one is a signal's."""
        command = [sys.executable, "-m", "genserve", *map(str, words)]
        threads = str(self.options.threads)
        quiet = {"TQDM_MININTERVAL": "30", "OMP_NUM_THREADS": threads, "PYTHONUNBUFFERED": "1"}
        with (
            (self.jobs.directory(job.id) / "log.txt").open("ab") as log,
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                pass_fds=locks, start_new_session=True, env=os.environ | quiet,
            ) as process,
        ):  # fmt: skip
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
                Path(f"/proc/{process.pid}/oom_score_adj").write_text(f"{OUT_OF_MEMORY}")
            while process.poll() is None:
                seconds = self.jobs.stops(job.id)
                if seconds is not None and seconds > STOP_S:
                    _end(process)
                try:
                    self._look(LOOK_S)
                except ClosingError:
                    _end(process)
                    raise
            return process.returncode

    def _last_words(self, job: Job) -> str:
        """Return the last line of the log that is an error, or the last line."""
        lines = [line for line in end_of(self.jobs.directory(job.id) / "log.txt") if line.strip()]
        errors = [line for line in lines[-20:] if line.startswith("error: ")]
        return (errors or lines or ["it ended without a word"])[-1].removeprefix("error: ")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a program and its children, politely first."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_S)
            return
