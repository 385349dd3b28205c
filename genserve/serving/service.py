"""TorchServe's side of every handler: rows in, replies out, and a bad row costs nobody else anything.

The host calls `handle(data, context)` with one dict a request and wants as many answers back. It does so in
one of two ways, which the archive's model-config.yaml chooses:

batched      a batch of new requests, every one of which is answered before the call returns
continuous   every open request, again and again. Each call says of each request whether it is finished, gets
             another frame, or is held. The engine runs in threads of its own and goes on meanwhile, so a call
             only takes in what is new and hands out what is ready. It returns after a time slice in which
             the host's own work, measured, is a small part.
"""

import json
import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import torch

from genserve.precision import PRECISIONS, precision_for
from genserve.runs.contract import Spec
from genserve.runs.loading import load_model
from genserve.sampling.engine import Finished
from genserve.sampling.lanes import Lanes
from genserve.sampling.samplers import Sampler, See
from genserve.serving.fields import BadRequest, parse
from genserve.serving.hosts.torchserve import Slices, keep_telling, only_worker
from genserve.serving.meter import Meter
from genserve.serving.replies import Film, Notes, Reply, Stream, answer, failure, film_for, refusal, too_late
from genserve.serving.requests.pictures import PictureRequest
from genserve.serving.rows import fields_of

log = logging.getLogger(__name__)

WORTH_A_VISIT = 8  # one answer for so many open requests


@dataclass
class Admitted:
    """A good request on its way through the engine."""

    request: PictureRequest
    film: Film | None
    notes: Notes
    at: float  # time.perf_counter
    stream: Stream | None  # what it is sent while it is on its way, where it asked for that


class EngineHandler(ABC):
    """A handler of one family: the subclass says which requests it takes and which sampler answers one."""

    Request: ClassVar[type[PictureRequest]]

    spec: Spec
    device: torch.device
    precision: str
    version = "local"
    continuous = False
    deadline_s = 600.0

    @abstractmethod
    def sampler(self, request: PictureRequest, see: See | None, notes: Notes) -> Sampler:
        """Return the sampler of a resolved request.

        Args:
            see: watches it, where there is one.
            notes: for what the answer shall say of each image beside its pixels.

        Raises:
            BadRequest: what came with the request is not what it must be.
        """

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked; on a GPU where there is one, without being told.

        Raises:
            RuntimeError: the archive is continuous and another worker has it.
        """
        config = context.model_yaml_config or {}
        settings = config.get("handler", {})
        directory = Path(context.system_properties["model_dir"])
        self.continuous = config.get("continuousBatching", False)
        if self.continuous:
            self._lock = only_worker(directory)
        self.version = str(context.manifest["model"]["modelVersion"])
        self.deadline_s = settings.get("deadline", self.deadline_s)
        gpu = context.system_properties.get("gpu_id")
        use_gpu = gpu is not None and torch.cuda.is_available()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.load(
            directory,
            torch.device("cuda", int(gpu)) if use_gpu else torch.device("cpu"),
            settings.get("budget", 32),
            1 if use_gpu else settings.get("threads") or max(1, cores // config.get("maxWorkers", 1)),
            settings.get("precision", "auto"),
        )
        keep_telling(context.metrics, self.meter, self.version)

    def load(
        self,
        directory: Path,
        device: torch.device,
        budget: int = 32,
        lanes: int = 1,
        precision: str = "auto",
    ) -> None:
        """Load model.pt and model.json.

        Args:
            budget: most images in one evaluation.
            lanes: how many evaluations run side by side, each on a core of its own.
            precision: "fp32", "bf16", or "auto" for what the device is fast at.

        Raises:
            ValueError: there is no such precision.
        """
        self.precision = precision_for(device) if precision == "auto" else precision
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be auto or one of {', '.join(PRECISIONS)}, got {precision!r}")
        self.spec, model = load_model(directory, device, PRECISIONS[self.precision], budget)
        self.device = device
        self.lanes = Lanes(model, lanes, budget)
        self.meter = Meter(self.lanes)
        self._open: dict[Hashable, Admitted] = {}
        self._slices = Slices()
        log.info(
            "loaded model=%s device=%s precision=%s lanes=%d budget=%d",
            self.spec.name, device, self.precision, lanes, budget,
        )  # fmt: skip

    def describe(self) -> Reply:
        """Return what this model is and how it runs."""
        running = {
            "version": self.version,
            "mode": "continuous" if self.continuous else "batched",
            "device": str(self.device),
            "precision": self.precision,
            "threads": self.lanes.n,
        }
        said = asdict(self.spec) | running
        if self.spec.walk:  # quartiles are enough to look at
            energies = self.spec.walk.energies
            said["walk"]["energies"] = energies[:: max(1, len(energies) // 4)]
        return Reply(json.dumps(said).encode(), "application/json")

    # ---- the host's calls ------------------------------------------------------------------------------

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Take in what is new and hand out what is ready: in a batched archive, everything."""
        ids: dict[int, Hashable] = dict(context.request_ids)
        slice_s = self._slices.enter() if self.continuous else math.inf
        for gone in self._open.keys() - set(ids.values()):  # hung up, or failed by the host
            self._forget(gone)
        ready: dict[Hashable, Reply] = {}
        for i, key in ids.items():
            if key not in self._open and (
                refused := self._admit(key, data[i], context.get_all_request_header(i))
            ):
                ready[key] = refused
        ready |= self._collect(slice_s)
        sent = [self._hand_out(i, key, ready, context) for i, key in ids.items()]
        if self.continuous:
            context.stopping_criteria = [lambda _, last=last: last for _, last in sent]
        self._slices.leave(bool(self._open), bool(ready))
        return [body for body, _ in sent]

    def replies(self, data: list[dict[str, Any]], headers: list[dict[str, str]]) -> list[Reply]:
        """Answer rows and their headers, in their order, without a host; each succeeds or fails by itself."""
        refused = {
            i: self._admit(i, row, sent) for i, (row, sent) in enumerate(zip(data, headers, strict=True))
        }
        ready = {i: reply for i, reply in refused.items() if reply} | self._collect(math.inf)
        return [ready[i] for i in range(len(data))]

    def _hand_out(
        self, i: int, key: Hashable, ready: dict[Hashable, Reply], context: Any
    ) -> tuple[bytes, bool | None]:
        """Return what request i is sent now, and whether that ends its stream; None of no stream."""
        reply, admitted = ready.get(key), self._open.get(key)
        if reply is not None:
            self._head(i, reply, context)
            return reply.body, True if reply.ends_stream else None
        assert admitted is not None
        if admitted.stream is None:
            context.request_ids.pop(i)  # held: what the host gets no answer for stays open
            return b"", None
        head = Reply(b"", admitted.stream.content_type, headers=admitted.stream.headers)
        self._head(i, head, context)
        return admitted.stream.more(), False  # b"" sends nothing, and shows whether the client is there

    def _head(self, i: int, reply: Reply, context: Any) -> None:
        context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, i)
        context.set_response_content_type(i, reply.content_type)
        for name, value in (reply.headers | {"X-Model-Version": self.version}).items():
            context.set_response_header(i, name, value)

    # ---- a request's way -------------------------------------------------------------------------------

    def _admit(self, key: Hashable, row: dict[str, Any], headers: dict[str, str]) -> Reply | None:
        """Send a row into the engine; return the answer where that is known at once."""
        try:
            request = parse(self.Request, *fields_of(row, headers)).resolved(self.spec)
            if request.task == "describe":
                return self.describe()
            if request.stream:
                self._check_stream(headers)
            film = film_for(request)
            notes: Notes = {}
            self.lanes.admit(key, self.sampler(request, film.see if film else None, notes))
            stream = Stream(request, self._settings(request), film) if request.stream and film else None
            self._open[key] = Admitted(request, film, notes, time.perf_counter(), stream)
            return None
        except BadRequest as error:
            self.meter.add("rejected")
            return refusal(error)
        except Exception:  # ours: it must not reach the host, which would fail the whole batch
            log.exception("failed to admit a request")
            self.meter.add("failed")
            return failure()

    def _settings(self, request: PictureRequest) -> dict[str, Any]:
        return request.settings(self.spec) | {"precision": self.precision}

    def _check_stream(self, headers: dict[str, str]) -> None:
        if not self.continuous:
            raise BadRequest(
                "stream", "this archive was built with --mode batched", "false, or a continuous archive"
            )
        # gRPC sends no headers, only an entry for each field; its unary call has no place for a second answer
        if not any(isinstance(value, str) for value in headers.values()):
            raise BadRequest("stream", "gRPC gets one answer", "false, or HTTP")

    def _collect(self, seconds: float) -> dict[Hashable, Reply]:
        """Let the engine run and return the replies to those who ended.

        For so long, or until nothing is open; in a continuous archive also until enough have ended to make it
        worth the host's while.
        """
        until = time.perf_counter() + seconds
        ready: dict[Hashable, Reply] = {}
        worth = max(1, len(self._open) // WORTH_A_VISIT) if self.continuous else math.inf
        while self._open and len(ready) < worth and (now := time.perf_counter()) < until:
            first = min(admitted.at for admitted in self._open.values()) + self.deadline_s
            for ended in self.lanes.wait(max(0.0, min(until, first) - now)):
                ready[ended.key] = self._reply(ended, self._open.pop(ended.key))
            now = time.perf_counter()
            for key in [k for k, admitted in self._open.items() if now - admitted.at > self.deadline_s]:
                ready[key] = self._give_up(key)
        return ready

    def _reply(self, ended: Finished, admitted: Admitted) -> Reply:
        """Return the answer to a request whose sampler has ended."""
        try:
            if ended.error is not None:
                raise ended.error
            sampled = time.perf_counter()
            settings = self._settings(admitted.request)
            reply = answer(admitted.request, settings, ended, admitted.film, admitted.notes)
        except torch.AcceleratorError:
            log.exception("the device is lost until this process ends: the host starts another")
            os._exit(1)
        except Exception:
            request = admitted.request  # never logged itself: a client's pictures are in it
            log.exception(
                "failed task=%s seed=%s settings=%s", request.task, request.seed, self._settings(request)
            )
            self.meter.add("failed")
            reply = failure()
        else:
            now = time.perf_counter()
            spent = {"queue": ended.waited, "sample": sampled - admitted.at, "encode": now - sampled}
            reply.headers["Server-Timing"] = ", ".join(f"{k};dur={1000 * s:.1f}" for k, s in spent.items())
            self.meter.add("answered")
            self.meter.add("images", admitted.request.num_samples)
            self.meter.add("queue_seconds", ended.waited)
            self.meter.took(now - admitted.at)
        return reply if admitted.stream is None else admitted.stream.end(ended, reply, admitted.notes)

    def _give_up(self, key: Hashable) -> Reply:
        admitted = self._open.pop(key)
        self.lanes.cancel(key)
        self.meter.add("late")
        reply = too_late(self.deadline_s)
        return reply if admitted.stream is None else admitted.stream.broken(reply)

    def _forget(self, key: Hashable) -> None:
        del self._open[key]
        self.lanes.cancel(key)
        self.meter.add("cancelled")
