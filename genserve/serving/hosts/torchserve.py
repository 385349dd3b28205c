"""Serve from TorchServe: rows in, replies out. The rest of a request's life is in `serving.service`.

The host calls `handle(data, context)` with one dict per request and wants as many answers back. It does so in
one of two ways, which the archive's model-config.yaml chooses:

batched      a batch of new requests, every one of which is answered before the call returns
continuous   every open request, again and again. Each call says of each request whether it is finished, gets
             another frame, or is held. The engine runs in threads of its own and goes on meanwhile, so a call
             only takes in what is new and hands out what is ready. It returns after a time slice in which
             the host's own work, measured, is a small part.
"""

import math
import os
from collections.abc import Hashable
from enum import Enum
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

import torch

from genserve.serving.hosts.visits import Slices, keep_telling, only_worker
from genserve.serving.replies import Reply
from genserve.serving.requests.base import Request
from genserve.serving.rows import fields_of
from genserve.serving.service import DEADLINE_S, Running, Service, loaded

WORTH_A_VISIT = 8  # one reply for this many open requests


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

    service: Service
    version = "local"
    continuous = False

    def initialize(self, context: Any) -> None:
        """Load the archive that TorchServe unpacked; on a GPU if there is one, without being told.

        Raises:
            RuntimeError: the archive is continuous and another worker has it.
        """
        config = context.model_yaml_config or {}
        settings = config.get("handler", {})
        directory = Path(context.system_properties["model_dir"])
        continuous = bool(config.get("continuousBatching", False))
        if continuous:
            self._lock = only_worker(directory)
        gpu = context.system_properties.get("gpu_id")
        use_gpu = gpu is not None and torch.cuda.is_available()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        lanes = settings.get("threads") or max(1, cores // config.get("maxWorkers", 1))
        self.load(
            directory,
            Running(
                device=torch.device("cuda", int(gpu)) if use_gpu else torch.device("cpu"),
                precision=settings.get("precision", "auto"),
                lanes=1 if use_gpu else lanes,
                budget=settings.get("budget", 32),
                deadline_s=settings.get("deadline", DEADLINE_S),
                version=str(context.manifest["model"]["modelVersion"]),
                mode="continuous" if continuous else "batched",
            ),
        )
        keep_telling(context.metrics, self.service.meter, self.version)

    def load(self, directory: Path, running: Running) -> None:
        """Load model.pt and model.json; raises as `service.loaded`."""
        self.service = loaded(directory, self.Request, running)
        self.version, self.continuous = running.version, running.mode == "continuous"
        self._slices = Slices()

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[bytes]:
        """Take in what is new and hand out what is ready: in a batched archive, everything."""
        service = self.service
        ids: dict[int, Hashable] = dict(context.request_ids)
        slice_s = self._slices.enter() if self.continuous else math.inf
        for gone in service.open - set(ids.values()):  # hung up, or failed by the host
            service.forget(gone)
        replies: dict[Hashable, Reply] = {}
        for i, key in ids.items():
            if key not in service.open and (refused := self._admit(key, data[i], i, context)):
                replies[key] = refused
        enough = max(1, len(service.open) // WORTH_A_VISIT) if self.continuous else math.inf
        replies |= service.collect(slice_s, enough)
        sent = [self._hand_out(i, replies.get(key), key, context) for i, key in ids.items()]
        if self.continuous:
            context.stopping_criteria = [lambda _, what=what: what.ends_stream for _, what in sent]
        self._slices.leave(bool(service.open), bool(replies))
        return [body for body, _ in sent]

    def _admit(self, key: Hashable, row: dict[str, Any], i: int, context: Any) -> Reply | None:
        headers: dict[str, Any] = context.get_all_request_header(i)
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
            what = Sent.LAST if reply.ends_stream else Sent.WHOLE
        elif (reply := self.service.progress(key)) is None:
            context.request_ids.pop(i)
            return b"", Sent.HELD
        context.set_response_status(reply.status, HTTPStatus(reply.status).phrase, i)
        context.set_response_content_type(i, reply.content_type)
        for name, value in (reply.headers | {"X-Model-Version": self.version}).items():
            context.set_response_header(i, name, value)
        return reply.body, what  # b"" of a stream sends nothing, and shows whether the client is there
