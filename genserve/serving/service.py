"""Answer many requests to one model together; no host is known here.

A request is admitted with a key of the caller's, its sampler runs in the engine beside all others, and
`collect` returns the replies of those that ended. Each request succeeds or fails by itself.
"""

import json
import logging
import math
import os
import time
from collections.abc import Callable, Hashable, KeysView, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genserve.precision import PRECISIONS, precision_for
from genserve.runs.contract import Spec
from genserve.runs.loading import load_model
from genserve.sampling.engine import Evaluate, Finished
from genserve.sampling.lanes import Lanes
from genserve.sampling.settings import Setting
from genserve.serving.fields import BadRequest, parse
from genserve.serving.film import Film, film_for
from genserve.serving.meter import Meter
from genserve.serving.orders import Order
from genserve.serving.replies import Reply, answer, failure, refusal, too_late
from genserve.serving.requests.base import Notes, Request
from genserve.serving.streams import Stream

log = logging.getLogger(__name__)

DEADLINE_S = 600.0
Received = tuple[dict[str, Any], bool]  # a client's fields, and whether their values are text


@dataclass
class Admitted:
    """A good request on its way through the engine."""

    order: Order
    setting: Setting | None
    facts: dict[str, Any]  # what the answer depends on
    film: Film | None
    notes: Notes
    at: float  # time.perf_counter
    stream: Stream | None  # what it is sent while it is on its way, if it asked for that


@dataclass(frozen=True, kw_only=True)
class Running:
    """How a service runs.

    Args:
        device: where the model is evaluated.
        precision: of its network, a key of PRECISIONS.
        lanes: evaluations side by side, each on a core of its own.
        budget: most images in one evaluation.
        deadline_s: seconds until a request is given up.
        version, mode: what `describe` says of them.
    """

    device: torch.device
    precision: str = "fp32"
    lanes: int = 1
    budget: int = 32
    deadline_s: float = DEADLINE_S
    version: str = "local"
    mode: str = "batched"


def loaded(directory: Path, kind: type[Request], running: Running) -> "Service":
    """Return the service of an unpacked archive.

    Args:
        directory: with model.pt and model.json.
        kind: the requests of its family.
        running: with the precision "auto" for what the device is fast at.

    Raises:
        ValueError: there is no such precision, or the files are not of this version.
        FileNotFoundError: there is no model.json.
    """
    precision = precision_for(running.device) if running.precision == "auto" else running.precision
    if precision not in PRECISIONS:
        names = ", ".join(PRECISIONS)
        raise ValueError(f"precision must be auto or one of {names}, got {running.precision!r}")
    spec, model = load_model(directory, running.device, PRECISIONS[precision], running.budget)
    return Service(spec, model, kind, replace(running, precision=precision))


class Service:
    """Answer the requests of one model. Its methods are for one thread.

    Args:
        spec: the model's contract.
        model: what evaluates it, called without gradients from several threads at a time.
        kind: the requests of its family.
    """

    def __init__(self, spec: Spec, model: Evaluate, kind: type[Request], running: Running) -> None:
        self.spec, self.kind, self.running = spec, kind, running
        self.lanes = Lanes(model, running.lanes, running.budget)
        self.meter = Meter(self.lanes)
        self._open: dict[Hashable, Admitted] = {}
        log.info(
            "serving model=%s device=%s precision=%s lanes=%d budget=%d",
            spec.name, running.device, running.precision, running.lanes, running.budget,
        )  # fmt: skip

    @property
    def open(self) -> KeysView[Hashable]:
        """Keys of the requests that have no reply yet."""
        return self._open.keys()

    def describe(self) -> Reply:
        """Return what this model is and how it runs."""
        running = self.running
        description = asdict(self.spec) | {
            "version": running.version,
            "mode": running.mode,
            "device": str(running.device),
            "precision": running.precision,
            "threads": running.lanes,
        }
        if self.spec.walk:  # quartiles are enough to look at
            energies = self.spec.walk.energies
            description["walk"]["energies"] = energies[:: max(1, len(energies) // 4)]
        return Reply(json.dumps(description).encode(), "application/json")

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
        order = None
        try:
            fields, text = read()
            order, setting = parse(self.kind, fields, text).resolved(self.spec)
            if order.task == "describe":
                return self.describe()
            if order.stream and no_stream:
                raise BadRequest("stream", *no_stream)
            film, notes = film_for(order, setting), Notes()
            see = film.see if film else None
            sampler = self.kind.begin(order, setting, self.spec, self.running.device, see, notes)
            self.lanes.admit(key, sampler)
            facts = order.facts | {"precision": self.running.precision}
            stream = None
            if order.stream and film and setting:
                stream = Stream(order, setting.steps_run, facts, film)
            self._open[key] = Admitted(order, setting, facts, film, notes, time.perf_counter(), stream)
            return None
        except BadRequest as error:
            self.meter.add("rejected")
            return refusal(error)
        except Exception:  # ours: no other request may fail with it
            log.exception("failed to admit a request: %s", order)
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
                replies[ended.key] = self._reply(ended, self._open.pop(ended.key))
            latest = time.perf_counter() - self.running.deadline_s  # of an admission that is not too late
            for key in [key for key, admitted in self._open.items() if admitted.at < latest]:
                replies[key] = self._give_up(key)
        return replies

    def progress(self, key: Hashable) -> Reply | None:
        """Return what an open request is sent now, b"" if there is nothing new; None if it is no stream."""
        stream = self._open[key].stream
        return None if stream is None else Reply(stream.more(), stream.content_type, headers=stream.headers)

    def forget(self, key: Hashable) -> None:
        """Drop an open request: its client has hung up."""
        del self._open[key]
        self.lanes.cancel(key)
        self.meter.add("cancelled")

    def close(self) -> None:
        """Stop evaluating; requests that are open get no reply."""
        self.lanes.close()

    def _reply(self, ended: Finished, admitted: Admitted) -> Reply:
        """Return the answer to a request whose sampler has ended."""
        order = admitted.order
        try:
            if ended.error is not None or ended.x_0 is None:
                raise ended.error or RuntimeError("a sampler returned nothing")
            sampled = time.perf_counter()
            reply = answer(order, admitted.facts, ended.x_0, ended.nfe, admitted.film, admitted.notes)
        except torch.AcceleratorError:
            log.exception("the device is lost until this process ends: the host starts another")
            os._exit(1)
        except Exception:
            log.exception("failed task=%s seed=%s settings=%s", order.task, order.seed, admitted.facts)
            self.meter.add("failed")
            reply = failure()
        else:
            now = time.perf_counter()
            spent = {"queue": ended.waited, "sample": sampled - admitted.at, "encode": now - sampled}
            reply.headers["Server-Timing"] = ", ".join(f"{k};dur={1000 * s:.1f}" for k, s in spent.items())
            self.meter.add("answered")
            self.meter.add("images", order.n)
            self.meter.add("queue_seconds", ended.waited)
            self.meter.took(now - admitted.at)
        return reply if admitted.stream is None else admitted.stream.end(ended, reply, admitted.notes)

    def _give_up(self, key: Hashable) -> Reply:
        admitted = self._open.pop(key)
        self.lanes.cancel(key)
        self.meter.add("late")
        reply = too_late(self.running.deadline_s)
        return reply if admitted.stream is None else admitted.stream.broken(reply)


def _as_json(fields: dict[str, Any]) -> Received:
    return fields, False
