"""Answer a body of several requests: each goes its own way through the engine, and their replies become one.

They share evaluations with each other and with everybody else's. The sums of their work and of their pixels
are limited as those of one request are.
"""

import logging
import math
from collections.abc import Callable, Hashable, Set
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, NoReturn

from genserve.serving.envelopes import Envelope
from genserve.serving.fields import BadRequest
from genserve.serving.replies import Reply, failure, refusal, sendable
from genserve.serving.service import Received, Service

log = logging.getLogger(__name__)


class Part(NamedTuple):
    """The key of one request of several."""

    key: Hashable  # of all
    number: int


@dataclass
class Join:
    """Replies that wait for the others of the same body."""

    envelope: Envelope
    replies: dict[int, Reply] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether the answer is known."""
        failed = any(reply.status != 200 for reply in self.replies.values())
        return len(self.replies) == len(self.envelope.reads) or (failed and self.envelope.all_or_none)


class JoiningService(Service):
    """A service that takes several requests under one key, too."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._joins: dict[Hashable, Join] = {}
        self._keys: set[Hashable] = set()

    @property
    def open(self) -> Set[Hashable]:
        """Keys that have no reply yet."""
        return self._keys

    def admit(
        self,
        key: Hashable,
        read: Callable[[], Received | Envelope],
        no_stream: tuple[str, str] | None = None,
    ) -> Reply | None:
        """Send a request, or all those of an envelope, into the engine; as `Service.admit`."""
        try:
            received = read()
        except Exception as error:
            return super().admit(key, partial(_fail, error), no_stream)
        if isinstance(received, tuple):
            reply = super().admit(key, partial(_same, received), no_stream)
        else:
            reply = self._admit_all(key, received)
        if reply is None:
            self._keys.add(key)
        return reply

    def collect(self, seconds: float, enough: float = math.inf) -> dict[Hashable, Reply]:
        """Let the engine run and return the replies that are whole; arguments as in `Service.collect`."""
        replies: dict[Hashable, Reply] = {}
        for key, reply in super().collect(seconds, enough).items():
            if not isinstance(key, Part):
                replies[key] = reply
            elif join := self._joins.get(key.key):  # none: another one of the same body has failed for all
                join.replies[key.number] = reply
                if join.over:
                    replies[key.key] = self._answer(key.key)
        self._keys -= replies.keys()
        return replies

    def progress(self, key: Hashable) -> Reply | None:
        """Return what an open request is sent now, as `Service.progress`; several are no stream."""
        return None if key in self._joins else super().progress(key)

    def forget(self, key: Hashable) -> None:
        """Drop an open request, or all those under this key: their client has hung up."""
        self._keys.discard(key)
        if (join := self._joins.pop(key, None)) is None:
            return super().forget(key)
        for part in self._parts(key, join):
            super().forget(part)
        return None

    def _admit_all(self, key: Hashable, envelope: Envelope) -> Reply | None:
        """Admit the requests of an envelope; return the answer if it is known at once.

        What the server cannot take now (a full queue, a drain) concerns all of them, as their client sends
        the body again.
        """
        join = self._joins[key] = Join(envelope)
        for number, read in enumerate(envelope.reads):
            reply = super().admit(Part(key, number), partial(_as_json, read))
            if reply is not None:
                join.replies[number] = reply
                if reply.status >= 500:
                    self._withdraw(key)
                    return reply
                if join.over:
                    break
            elif refused := self._too_much(key, join):
                self._withdraw(key)
                self.meter.add("rejected")
                return refusal(refused)
        return self._answer(key) if join.over else None

    def _too_much(self, key: Hashable, join: Join) -> BadRequest | None:
        """Return what is too much of the requests under a key, together."""
        envelope, parts = join.envelope, [self._open[part].job for part in self._parts(key, join)]
        if envelope.all_or_none and len({job.n for job in parts}) > 1:
            return BadRequest("num_samples", "not the same in the batch", "as many in each request")
        work_max, size_max = self.kind.work_max, self.kind.size_max
        if sum(job.work for job in parts) > work_max:
            message = f"the requests take more than {work_max} network evaluations together"
            return BadRequest(envelope.name, message, "fewer or smaller requests in one body")
        # a pixel in a tensor takes four characters, of which the host lets 16 million through
        most = size_max // 2 if envelope.all_or_none else size_max
        if sum(job.size for job in parts) > most:
            message = f"the answer would have more than {most} values"
            return BadRequest(envelope.name, message, "fewer or smaller requests in one body")
        return None

    def _parts(self, key: Hashable, join: Join) -> list[Part]:
        """Return the keys under this one that are in the engine."""
        parts = (Part(key, number) for number in range(len(join.envelope.reads)))
        return [part for part in parts if part in self._open]

    def _withdraw(self, key: Hashable) -> None:
        """Drop what is open under a key whose answer is known."""
        for part in self._parts(key, self._joins.pop(key)):
            del self._open[part]
            self.lanes.cancel(part)

    def _answer(self, key: Hashable) -> Reply:
        join = self._joins[key]
        self._withdraw(key)
        replies = dict(sorted(join.replies.items()))
        try:
            return sendable(
                join.envelope.joined(replies, self.running.name or self.spec.name, self.running.version)
            )
        except BadRequest as error:
            return refusal(error)
        except Exception:  # ours
            log.exception("failed to join the answers to %d requests", len(join.envelope.reads))
            return failure()


def _fail(error: Exception) -> NoReturn:
    raise error


def _same(received: Received) -> Received:
    return received


def _as_json(read: Callable[[], dict[str, Any]]) -> Received:
    return read(), False
