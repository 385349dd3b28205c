"""Answer many requests to one model together; no host is known here.

A request is admitted with a key of the caller's, its sampler runs in the engine beside all others, and
`collect` returns the replies of those that ended. Each request succeeds or fails by itself.
"""

import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from genserve.backends import TORCHSCRIPT
from genserve.runs.contract import Contract
from genserve.runs.loading import load_served
from genserve.sampling.engine import Evaluate, Finished
from genserve.sampling.lanes import Lanes
from genserve.serving.admission import Admitted, refused
from genserve.serving.fields import BadRequest, parse
from genserve.serving.jobs.base import Job
from genserve.serving.meter import Meter
from genserve.serving.replies import JSON, Reply, failure, not_now, refusal, sendable, too_late
from genserve.serving.requests.base import Request

log = logging.getLogger(__name__)

DEADLINE_S = 120.0
MEASURE_S = 0.3  # of evaluations when an archive is loaded, before the first request
RESTART_S = 5  # until a server that is stopping may be back, or another has its place
Received = tuple[dict[str, Any], bool]  # a client's fields, and whether their values are text


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a service runs.

    Args:
        device: where the model is evaluated.
        backend: what evaluates its network, one of BACKENDS.
        precision: of its network, one of SERVED_IN.
        lanes: evaluations side by side, each on a core of its own.
        budget: most items in one evaluation.
        deadline_s: seconds until a request is given up; one that cannot end by then is not let in.
        places: requests that may be open, some of them only for small ones; None for any number.
        name: of the model in its address; its own if empty.
        version, mode: what `describe` says of them.
    """

    device: torch.device
    backend: str = TORCHSCRIPT
    precision: str = "fp32"
    lanes: int = 1
    budget: int = 32
    deadline_s: float = DEADLINE_S
    places: int | None = None
    name: str = ""
    version: str = "local"
    mode: str = "batched"

    @property
    def computed(self) -> dict[str, str]:
        """What answers depend on beside a request: it stands in the settings of every picture."""
        return {"backend": self.backend, "precision": self.precision}


def loaded(service: type["Answering"], directory: Path, kind: type[Request], running: Running) -> "Answering":
    """Return the service of an unpacked archive.

    Args:
        service: its class.
        directory: with model.pt and model.json.
        kind: the requests of its family.
        running: with the backend and the precision that are wished for.

    Raises:
        FileNotFoundError, ValueError: as `load_served`.
    """
    wished: dict[str, Any] = {"budget": running.budget, "lanes": running.lanes, **running.computed}
    model = load_served(directory, running.device, complete=False, **wished)
    running = replace(running, backend=model.backend, precision=model.precision)
    answering = service(model.spec, model.model, kind, running)
    answering.lanes.measure(model.spec.examples(running.budget, running.device)[0], MEASURE_S)
    threading.Thread(target=model.complete, name="complete").start()
    return answering


class Service:
    """Answer the requests of one model.

    One thread at a time may admit, collect and forget. The others that look after it may call `describe`,
    `drain`, `pause`, `resume` and `expire` meanwhile.

    Args:
        spec: the model's contract.
        model: what evaluates it, called without gradients from several threads at a time.
        kind: the requests of its family.
    """

    def __init__(self, spec: Contract, model: Evaluate, kind: type[Request], running: Running) -> None:
        self.spec, self.kind, self.running = spec, kind, running
        self.lanes = Lanes(model, running.lanes, running.budget)
        self.meter = Meter(self.lanes)
        self._open: dict[Hashable, Admitted] = {}
        self._lock = threading.Lock()  # on the dict and what is `late` in it
        self._draining = False
        log.info(
            "serving model=%s device=%s backend=%s precision=%s lanes=%d budget=%d",
            spec.name, running.device, running.backend, running.precision, running.lanes, running.budget,
        )  # fmt: skip

    @property
    def open(self) -> Set[Hashable]:
        """Keys of the requests that have no reply yet."""
        return self._open.keys()

    def drain(self, on: bool = True) -> None:
        """Refuse every request from now on with 503, or no longer; those that are open go on."""
        self._draining = on

    def pause(self) -> None:
        """Evaluate nothing until `resume`, because no one comes for the answers; deadlines are kept."""
        self.lanes.pause()

    def resume(self) -> None:
        """Go on after `pause`."""
        self.lanes.resume()

    def expire(self) -> None:
        """Give up the requests that are past their deadline; `collect` returns their replies.

        It does so itself. This is for a thread that watches while it is not called: their work ends in time.
        """
        with self._lock:
            latest = time.perf_counter() - self.running.deadline_s  # of an admission that is not too late
            for key, admitted in self._open.items():
                if admitted.at < latest and not admitted.late and self.lanes.cancel_open(key):
                    admitted.late = True

    def describe(self) -> Reply:
        """Return what this model is and how it runs."""
        running = self.running
        description = self.spec.described() | {
            "version": running.version,
            "mode": running.mode,
            "device": str(running.device),
            **running.computed,
            "threads": self.lanes.n,
        }
        return Reply(json.dumps(description).encode(), JSON)

    def answers(self, requests: Sequence[dict[str, Any]]) -> list[Reply]:
        """Answer requests together, in their order: the fields of each as in JSON."""
        replies: dict[Hashable, Reply] = {}
        for k, fields in enumerate(requests):
            if refused := self.admit(k, partial(_as_json, fields)):
                replies[k] = refused
        replies |= self.collect(math.inf)
        return [replies[k] for k in range(len(requests))]

    def admit(
        self, key: Hashable, read: Callable[[], Received], no_stream: tuple[str, str] | None = None
    ) -> Reply | None:
        """Send a request into the engine; return the reply if it is known at once.

        Args:
            key: names the request until its reply, and is not in use.
            read: returns what the client sent; a BadRequest that it raises is the reply.
            no_stream: why this request cannot be streamed, and what it may ask instead.
        """
        if self._draining:
            self.meter.add("refused")
            return not_now(
                "this server is stopping; another may answer, or this one once it is back", RESTART_S
            )
        job = None
        try:
            fields, text = read()
            job = parse(self.kind, fields, text).job(self.spec, self.running.computed)
            if job is None:
                return self.describe()
            if job.stream and no_stream:
                raise BadRequest("stream", *no_stream)
            if busy := self._refused(job):
                self.meter.add("refused")
                return busy
            self.lanes.admit(key, job.begin(self.running.device))
            with self._lock:
                self._open[key] = Admitted(job, time.perf_counter())
            return None
        except BadRequest as error:
            self.meter.add("rejected")
            return refusal(error)
        except Exception:  # ours: no other request may fail with it
            log.exception("failed to admit a request: %s", job)
            self.meter.add("failed")
            return failure()

    def collect(self, seconds: float, enough: float = math.inf) -> dict[Hashable, Reply]:
        """Let the engine run and return the replies of the requests that ended.

        Args:
            seconds: return after this time at the latest, or as soon as nothing is open.
            enough: return as soon as there are this many replies.
        """
        until = time.perf_counter() + seconds
        replies: dict[Hashable, Reply] = {}
        while self._open and len(replies) < enough and (now := time.perf_counter()) < until:
            first = min(admitted.at for admitted in self._open.values()) + self.running.deadline_s
            for ended in self.lanes.wait(max(0.0, min(until, first) - now)):
                replies[ended.key] = self._reply(ended, self._removed(ended.key))
            self.expire()
            for key in [key for key, admitted in self._open.items() if admitted.late]:
                replies[key] = self._too_late(self._removed(key))
        return replies

    def progress(self, key: Hashable) -> Reply | None:
        """Return what an open request is sent now, b"" if there is nothing new; None if it is no stream."""
        job = self._open[key].job
        if job.stream is None:
            return None
        headers = job.stream.headers | {"X-Work": str(job.work)}
        return Reply(job.stream.more(), job.stream.content_type, headers=headers)

    def forget(self, key: Hashable) -> None:
        """Drop an open request: its client has hung up."""
        self._removed(key)
        self.lanes.cancel(key)
        self.meter.add("cancelled")

    def close(self) -> None:
        """Stop evaluating; requests that are open get no reply."""
        self.lanes.close()

    def _refused(self, job: Job) -> Reply | None:
        """Return why a job cannot come in now; None if it can."""
        running, done = self.running, self.lanes.open
        works = ((key, admitted.job.work) for key, admitted in self._open.items())
        left = [work - done.get(key, work) for key, work in works]
        rate, most = self.lanes.rate, self.kind.work_max
        return refused(job.work, left, rate, running.deadline_s, running.places, most)

    def _reply(self, ended: Finished, admitted: Admitted) -> Reply:
        """Return the answer to a request whose sampler has ended."""
        job = admitted.job
        try:
            if ended.error is not None or ended.result is None:
                raise ended.error or RuntimeError("a sampler returned nothing")
            sampled = time.perf_counter()
            reply = sendable(job.answer(ended))
        except BadRequest as error:
            self.meter.add("rejected")
            reply = refusal(error)
        except torch.AcceleratorError:
            log.exception("the device is lost until this process ends: the host starts another")
            os._exit(1)
        except Exception:
            log.exception("failed %s", job)
            self.meter.add("failed")
            reply = failure()
        else:
            now = time.perf_counter()
            spent = {"queue": ended.waited, "sample": sampled - admitted.at, "encode": now - sampled}
            reply.headers["X-Work"] = str(ended.evaluated)
            reply.headers["Server-Timing"] = ", ".join(f"{k};dur={1000 * s:.1f}" for k, s in spent.items())
            self.meter.add("answered")
            self.meter.add("images", job.n)
            self.meter.add("queue_seconds", ended.waited)
            self.meter.took(now - admitted.at)
        return reply if job.stream is None else job.stream.end(ended, reply)

    def _too_late(self, admitted: Admitted) -> Reply:
        """Return the answer to a request that was given up."""
        self.meter.add("late")
        reply = too_late(self.running.deadline_s)
        stream = admitted.job.stream
        return reply if stream is None else stream.broken(reply)

    def _removed(self, key: Hashable) -> Admitted:
        """Return a request that is no longer open."""
        with self._lock:
            return self._open.pop(key)


Answering = TypeVar("Answering", bound=Service)


def _as_json(fields: dict[str, Any]) -> Received:
    return fields, False
