"""Plain requests whose client is watched: the host tells of one that hangs up only if it is sent a stream.

A client that sends the header `X-Hang-Up: notice` gets an ordinary answer if that is ready within HOLD_S.
If it is not, the answer becomes a stream that begins with an empty line. When it is ready, one line of JSON
comes, {"status", "content_type", "headers"}, and then the bytes of an ordinary answer. If the client of
such a stream leaves, its place is free after a visit of the host. The gateway asks for this.
"""

import json
import time
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from genserve.serving.replies import Reply

HEADER, NOTICE = "X-Hang-Up", "notice"
HOLD_S = 0.3
CONTENT_TYPE = "application/x-genserve-late"


@dataclass
class _Open:
    at: float
    begun: bool = False


class Held:
    """The open requests of clients that are watched.

    Args:
        clock: returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._open: dict[Hashable, _Open] = {}

    def add(self, key: Hashable, headers: Mapping[str, Any]) -> None:
        """Watch the client of a new request if its headers ask for it."""
        if headers.get(HEADER) == NOTICE:
            self._open[key] = _Open(self._clock())

    def keep(self, keys: Iterable[Hashable]) -> None:
        """Forget all requests but these."""
        self._open = {key: self._open[key] for key in self._open.keys() & set(keys)}

    def part(self, key: Hashable) -> Reply | None:
        """Return what an open request is sent now; None if that is nothing at all."""
        one = self._open.get(key)
        if one is None or self._clock() < one.at + HOLD_S:
            return None
        body, one.begun = b"" if one.begun else b"\n", True
        return Reply(body, CONTENT_TYPE, headers={"X-Accel-Buffering": "no"})

    def end(self, key: Hashable, reply: Reply) -> Reply:
        """Return a plain reply in the form that its request has taken."""
        one = self._open.get(key)
        if one is None or not one.begun:
            return reply
        head = {"status": reply.status, "content_type": reply.content_type, "headers": reply.headers}
        return Reply(json.dumps(head).encode() + b"\n" + reply.body, CONTENT_TYPE, ends_stream=True)
