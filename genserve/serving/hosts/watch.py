"""Look after a worker while TorchServe is away: what it has open, its lanes, its end.

The host visits a worker that has requests open again and again. If it stays away, it has forgotten them: it
found the clients of all streams gone, say, and then waits for somebody else's request. A post to ourselves
brings it back, and the worker learns which requests are gone. Until then the lanes stand still.
"""

import contextlib
import logging
import os
import time

from genserve.crew import Asked, Place, State
from genserve.serving.hosts.anchors import Alone, in_background
from genserve.serving.hosts.guard import Guard
from genserve.serving.hosts.loopback import grpc_address
from genserve.serving.service import Service

log = logging.getLogger(__name__)

BUSY_S, IDLE_S = 0.1, 0.5  # between two looks
NUDGE_S = 0.3  # the host's own absence between two visits is a few milliseconds
PAUSE_S = 2.0
GUARD_TRIES, GUARD_S = 60, 1.0  # while the host starts
DRAINED_S = 60.0  # for who asked for a drain to stop this worker, after the deadline of what it had open
SENT_S = 0.2  # for the host to send what it was handed last


class Watch:
    """Threads that look after a worker. It is entered and left as the host comes and goes.

    Args:
        service: of this worker.
        place: its slot in the table of workers.
        anchors: of this worker.
        cores: that all workers of this model share; 0 if they share none, as on GPUs of their own.
    """

    def __init__(self, service: Service, place: Place, anchors: Alone, cores: int) -> None:
        self._service, self._place, self._anchors, self._cores = service, place, anchors, cores
        self._here = False
        self._moved = time.monotonic()  # when the host came or went last
        self._works = False  # requests are open in this visit, or were
        self._worked = self._moved  # when the host left with what it was answered of those
        self._stopping = self._closed = False
        self._asked_at: float | None = None  # when this worker was asked to drain
        self._call: Guard | None = None
        self._threads = [in_background(run) for run in (self._look, self._guard)]

    def __enter__(self) -> None:
        """Note that the host has come."""
        self._here, self._moved = True, time.monotonic()
        self._service.resume()

    def works(self) -> None:
        """Note that requests are open in this visit."""
        self._works = True

    def __exit__(self, *_: object) -> None:
        """Note that the host goes."""
        self._here, self._moved = False, time.monotonic()
        if self._works:
            self._works, self._worked = False, self._moved

    def close(self) -> None:
        """Stop looking after the worker, and let go of the host."""
        self._closed = True
        if self._call:
            self._call.shutdown()
        for thread in self._threads:
            thread.join()

    def _look(self) -> None:
        while not self._closed:
            time.sleep(BUSY_S if self._service.open else IDLE_S)
            self._report()
            self._share_cores()
            self._drain_if_asked()
            if not self._here and (self._service.open or self._retires()):
                self._miss_the_host(time.monotonic() - self._moved)

    def _report(self) -> None:
        """Write into the table what others judge this worker by; end the process if an evaluation hangs."""
        since = self._service.lanes.evaluating_since()
        self._place.put(visited=self._moved, evaluating_since=since)
        if since and time.monotonic() - since > self._service.running.deadline_s:
            log.critical("an evaluation has taken %.0f s: this worker ends", time.monotonic() - since)
            os._exit(1)

    def _share_cores(self) -> None:
        """Give this worker its share of the cores: as many lanes as fall to each living one."""
        if self._cores:
            working = sum(member.state is not State.RETIRED for member in self._place.members())
            self._service.lanes.resize(max(1, self._cores // max(1, working)))

    def _drain_if_asked(self) -> None:
        """Refuse newcomers while the host stops, or while this worker is asked to.

        It forgets that it was asked once all that may be open has ended: who asked has been killed, perhaps.
        """
        drains = self._place.me.duty is Asked.DRAIN
        now = time.monotonic()
        self._asked_at = (self._asked_at or now) if drains else None
        if self._asked_at and now - self._asked_at > self._service.running.deadline_s + DRAINED_S:
            log.warning("drained for %.0f s and not stopped: working on", now - self._asked_at)
            self._place.put(duty=Asked.NOTHING)
            drains = False
        self._service.drain(self._stopping or drains)

    def _retires(self) -> bool:
        """Return whether this worker has yet to retire, which it does while the host is here."""
        me = self._place.me
        return me.duty is Asked.RETIRE and me.state is not State.RETIRED

    def _miss_the_host(self, away: float) -> None:
        if away > NUDGE_S:
            self._anchors.nudge()
        if away > PAUSE_S:
            self._service.pause()
        self._service.expire()

    def _guard(self) -> None:
        """Hold the host's stop until nothing is open, or the deadline of all that is open has passed."""
        try:
            with contextlib.closing(self._opened()) as guard:
                self._call = guard
                guard.wait()
                log.info("the host stops: %d requests are open", len(self._service.open))
                self._stopping = True
                self._service.drain(True)
                limit = time.monotonic() + self._service.running.deadline_s + SENT_S
                while time.monotonic() < limit and not self._done():
                    time.sleep(SENT_S / 10)
                guard.release()
        except (OSError, EOFError) as error:
            log.warning("a stop of the host will not wait for this worker: %s", error)

    def _opened(self) -> Guard:
        """Open the call; the host may be about to start."""
        for _ in range(GUARD_TRIES):
            try:
                return Guard(grpc_address())
            except OSError:
                time.sleep(GUARD_S)
        return Guard(grpc_address())

    def _done(self) -> bool:
        """Return whether nothing is open, and the host has had what was answered last for a while.

        It comes for refusals all the while; they do not count.
        """
        return not self._service.open and not self._works and time.monotonic() - self._worked > SENT_S
