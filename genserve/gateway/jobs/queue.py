"""The queue of jobs: huey, with a file of SQLite or with Redis; one turn at a time.

A task is the id of a job and no more. What a kill takes out of the queue comes back from the run directories.
"""

import json
import logging
import sqlite3
import threading
from datetime import datetime
from typing import Any

from huey import PriorityRedisHuey, SqliteHuey, crontab
from huey.api import Huey, PeriodicTask, Task
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer
from huey.signals import SIGNAL_ERROR

from genserve.gateway.jobs.record import Job, Jobs
from genserve.gateway.jobs.work import Work
from genserve.gateway.options import Options

log = logging.getLogger(__name__)
NAME = "genserve-jobs"
POLL_S = 1.0  # between two looks at an empty queue
CLOSE_S = 30.0  # that a turn may take to end
LATE_S = 30  # after which a look for lost jobs is left to the next one
BEGUN, NEW = 1, 0  # priorities: what has begun goes on before anything new


class Lines(Serializer):  # type: ignore[misc]
    """Tasks as lines of JSON: huey's own way would run whatever stands in the queue."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(data, default=datetime.isoformat).encode()

    def _deserialize(self, data: bytes) -> Any:
        message = Message(*json.loads(bytes(data)))
        times = {name: getattr(message, name) for name in ("eta", "expires_resolved")}
        read = {name: text and datetime.fromisoformat(text) for name, text in times.items()}
        return message._replace(**read)


class Embedded(Consumer):  # type: ignore[misc]
    """A consumer in a program that has its own way to end."""

    def _set_signal_handlers(self) -> None:
        pass


class Queue:
    """Jobs and their turns, in threads of this process.

    Args:
        options: of the gateway.
    """

    def __init__(self, options: Options) -> None:
        self.options, self.jobs = options, Jobs(options.runs)
        self.work = Work(options, self.jobs)
        self._starting = threading.Lock()
        self._huey: Huey | None = None
        self._consumer: Embedded | None = None
        self._faults: tuple[type[Exception], ...] = (sqlite3.Error,)

    def start(self) -> None:
        """Begin to take turns, with the jobs that were cut off first; again if that failed before.

        Raises:
            OSError: the folder of runs cannot be written.
        """
        with self._starting:
            if self._huey is None:
                try:
                    self._huey = self._connected()
                except self._faults as error:
                    raise OSError(f"{self.jobs.own}: {error}") from error
                self._consumer = Embedded(self._huey, max_delay=POLL_S, shutdown_timeout=CLOSE_S)
                self._consumer.start()

    def close(self) -> None:
        """End the turn that goes on, so that the next gateway can go on with it."""
        self.work.closing.set()
        if self._consumer is not None:
            self._consumer.stop(graceful=True)

    def put(self, job: Job) -> None:
        """Have a job wait for its turn; raises as `start`.

        If the queue cannot take it now, it does when it looks for lost jobs.
        """
        self.start()
        assert self._huey is not None
        try:
            self._huey.enqueue(self._task(job.id, priority=BEGUN if job.began else NEW))
        except self._faults as error:
            log.warning("job=%s waits outside of the queue: %s", job.id, error)

    def recover(self) -> None:
        """Put back the jobs that neither the queue nor a gateway has in hand."""
        assert self._huey is not None
        waiting = {task.args[0] for task in self._huey.pending() if not isinstance(task, PeriodicTask)}
        for job in self.jobs.open():
            if job.id not in waiting and self.work.free(job.id):
                log.info("job=%s goes on, %s", job.id, job.state.value)
                self.put(job)

    def _connected(self) -> Huey:
        settings: dict[str, Any] = {"results": False, "serializer": Lines()}
        if self.options.redis is None:
            huey = SqliteHuey(NAME, filename=str(self.jobs.own / "queue.db"), strict_fifo=True, **settings)
        else:
            from redis.exceptions import RedisError

            self._faults = (RedisError,)
            huey = PriorityRedisHuey(NAME, url=self.options.redis, **settings)
        self._task = huey.task(name="job")(self.work.run).s
        every_minute = huey.periodic_task(crontab(), name="recover", expires=LATE_S)
        every_minute(self.recover)
        huey.signal(SIGNAL_ERROR)(self._failed)
        return huey

    def _failed(self, signal: str, task: Task, error: Exception) -> None:
        """End a job that a fault of ours has cut off; huey's log has the fault."""
        if not isinstance(task, PeriodicTask):
            self.jobs.fail(task.args[0], f"the gateway failed; its log says why ({type(error).__name__})")
