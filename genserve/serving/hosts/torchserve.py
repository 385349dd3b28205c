"""Serve from TorchServe: rows in, replies out. The rest of a request's life is in `serving.service`.

The host calls `handle(data, context)` with one dict per request and wants as many answers back. It does so in
one of two ways, which the archive's model-config.yaml chooses:

batched      a batch of new requests, every one of which is answered before the call returns
continuous   every open request, again and again. Each call says of each request whether it is finished, gets
             another frame, or is held. The engine runs in threads of its own and goes on meanwhile, so a call
             only takes in what is new and hands out what is ready. It returns after a time slice in which
             the host's own work, measured, is a small part.
"""

import logging
import math
import os
import signal
import time
from collections.abc import Hashable
from contextlib import nullcontext
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import torch

from genserve.backends import TORCHSCRIPT
from genserve.crew import FILE, Place
from genserve.serving.hosts.anchors import HEADER, LET_GO, NOT_MINE, STAY_S, Alone, Anchors
from genserve.serving.hosts.held import Held
from genserve.serving.hosts.loopback import poster, worker_number
from genserve.serving.hosts.parcels import ADMIT_S, parcel
from genserve.serving.hosts.visits import SLICE_MAX_S, Slices, keep_telling, places, worth_a_visit
from genserve.serving.hosts.watch import Watch
from genserve.serving.joined import JoiningService
from genserve.serving.replies import Reply, not_now
from genserve.serving.requests.base import Request
from genserve.serving.rows import fields_of
from genserve.serving.service import DEADLINE_S, Running, loaded

log = logging.getLogger(__name__)


class Sent(Enum):
    """What the host does with what a request is sent."""

    WHOLE = "whole"  # it sends an ordinary answer with its length, and the request is over
    MORE = "more"  # it sends a chunk of a stream, and the request stays open
    LAST = "last"  # it sends the last chunk of a stream, and the request is over
    HELD = "held"  # it sends nothing: a request that is missing from the reply stays open

    @property
    def ends_stream(self) -> bool | None:
        """The answer of the host's stopping criterion, None if the request is no stream."""
        return {Sent.MORE: False, Sent.LAST: True}.get(self)


class Handler:
    """A TorchServe handler of one family: the subclass says which requests it takes."""

    Request: ClassVar[type[Request]]

    service: JoiningService
    version = "local"
    continuous = False
    _watch: Watch | None = None
    _anchors: Alone

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked; on a GPU if there is one, without being told.

        Raises:
            OSError: the table of workers cannot be written into the folder of the archive.
        """
        config = context.model_yaml_config or {}
        settings = config.get("handler", {})
        directory = Path(context.system_properties["model_dir"])
        continuous = bool(config.get("continuousBatching", False))
        batch = int(context.system_properties.get("batch_size") or config.get("batchSize") or 1)
        gpu = context.system_properties.get("gpu_id")
        use_gpu = gpu is not None and torch.cuda.is_available()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        shared = 0 if use_gpu or settings.get("threads") else cores
        version = str(context.manifest["model"]["modelVersion"])
        self.load(
            directory,
            Running(
                device=torch.device("cuda", int(gpu)) if use_gpu else torch.device("cpu"),
                backend=settings.get("backend", TORCHSCRIPT),
                precision=settings.get("precision", "auto"),
                lanes=shared or (1 if use_gpu else settings["threads"]),
                budget=settings.get("budget", 32),
                deadline_s=settings.get("deadline", DEADLINE_S),
                places=places(batch) if continuous else None,
                name=context.model_name,
                version=version,
                mode="continuous" if continuous else "batched",
            ),
        )
        if number := worker_number():
            for stop in (signal.SIGTERM, signal.SIGINT):  # a whole group's; the host ends its workers
                signal.signal(stop, signal.SIG_IGN)
            table = Place(directory / FILE, number)
            self._anchors = Alone(table)
            if continuous:
                self._anchors = Anchors(table, poster(context.model_name, version, HEADER))
            self._watch = Watch(self.service, table, self._anchors, shared)
        keep_telling(context.metrics, self.service.meter, self.version)

    def load(self, directory: Path, running: Running) -> None:
        """Load model.pt and model.json; raises as `service.loaded`."""
        self.service = loaded(JoiningService, directory, self.Request, running)
        self.version, self.continuous = running.version, running.mode == "continuous"
        self._slices = Slices()
        self._anchors = Alone()
        self._held = Held()
        self._ready: dict[Hashable, Reply] = {}  # answers that the last visit had no room for
        self._described: Hashable = None  # the request that a description answered last

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Take in what is new and hand out what is ready: in a batched archive, everything."""
        with self._watch or nullcontext():
            return self._visit(data, context)

    def _visit(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        service, anchors = self.service, self._anchors
        ids: dict[int, Hashable] = dict(context.request_ids)
        slice_s = self._slices.enter() if self.continuous else math.inf
        for gone in service.open - set(ids.values()):  # hung up, or failed by the host
            service.forget(gone)
        self._held.keep(ids.values())
        headers = {key: context.get_all_request_header(i) for i, key in ids.items()}
        mine, foreign = anchors.sorted({key: h[HEADER] for key, h in headers.items() if HEADER in h})
        replies = {key: reply for key, reply in self._ready.items() if key in headers}
        replies |= {key: Reply(b"", "text/plain", NOT_MINE) for key in foreign}
        known = service.open | replies.keys() | set(mine)
        began, waiting = time.monotonic(), False
        for i, key in ids.items():
            new = key not in known
            if new and self.continuous and time.monotonic() > began + ADMIT_S:
                waiting = True  # for the next visit, which brings it again
            elif new and (reply := self._admit(key, data[i], headers[key])):
                replies[key] = reply
            elif new and self.continuous:
                self._held.add(key, headers[key])
        if service.open:
            if self._watch:
                self._watch.works()
            anchors.busy(len(service.open))
            enough: float = worth_a_visit(len(service.open)) if self.continuous else math.inf
            if anchors.holds_back(bool(mine)):
                slice_s, enough = STAY_S, math.inf
            replies |= service.collect(0.0 if self._ready or waiting else slice_s, enough)
        replies, self._ready = self._parcelled(replies)
        waiting = waiting or bool(self._ready)
        keep = bool(service.open) or waiting or anchors.idle(bool(mine), bool(replies))
        replies |= dict.fromkeys(mine[1 if keep else 0 :], Reply(b"", "text/plain", LET_GO))
        sent = [self._hand_out(i, replies.get(key), key, context) for i, key in ids.items()]
        if self.continuous:
            context.stopping_criteria = [lambda _, what=what: what.ends_stream for _, what in sent]
        self._slices.leave(bool(service.open) or waiting, bool(replies))
        return [body for body, _ in sent]

    def _parcelled(
        self, replies: dict[Hashable, Reply]
    ) -> tuple[dict[Hashable, Reply], dict[Hashable, Reply]]:
        """Return the replies that go now, and those for the next visit: of a batch, there is none."""
        now, later = parcel(replies)
        if not self.continuous:
            busy = "too busy: the answers to a batch are too long together; ask again, or for less"
            now, later = now | {key: not_now(busy, 1) for key in later}, {}
        return now, later

    def _admit(self, key: Hashable, row: dict[str, Any], headers: dict[str, Any]) -> Reply | None:
        if headers.get("describe") == "True":  # the host's own header, on ?customized=true
            if key == self._described:
                log.error("the host repeats a description for ever: unregister this model and register it")
                time.sleep(SLICE_MAX_S)
            self._described = key
            return self.service.describe()
        no_stream = None
        if not self.continuous:
            no_stream = ("this archive was built with --mode batched", "false, or a continuous archive")
        # gRPC sends no headers, only an entry for each field; its unary call has no place for a second answer
        elif not any(isinstance(value, str) for value in headers.values()):
            no_stream = ("gRPC gets one answer", "false, or HTTP")
        return self.service.admit(key, lambda: fields_of(row, headers, self.Request), no_stream)

    def _hand_out(self, i: int, reply: Reply | None, key: Hashable, context: Any) -> tuple[bytes, Sent]:
        """Return what request i is sent now, and what the host is to do with it."""
        what = Sent.MORE
        if reply is not None:
            reply = self._held.end(key, reply)
            what = Sent.LAST if reply.ends_stream else Sent.WHOLE
        elif (reply := self._progress(key)) is None:
            context.request_ids.pop(i)
            return b"", Sent.HELD
        context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, i)
        context.set_response_content_type(i, reply.content_type)
        for name, value in (reply.headers | {"X-Model-Version": self.version}).items():
            context.set_response_header(i, name, value)
        return reply.body, what  # b"" of a stream sends nothing, and shows whether the client is there

    def _progress(self, key: Hashable) -> Reply | None:
        """Return what an open request is sent now; None if that is nothing at all."""
        if key not in self.service.open:
            return None
        return self.service.progress(key) or self._held.part(key)
