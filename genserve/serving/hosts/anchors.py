"""Let several workers serve one continuous model, though TorchServe 0.12 is right with one only.

The host lets a worker without open requests wait in the model's queue while it holds the queue's lock, and so
blocks every worker that has some. A worker with an open request never waits there: the host asks the queue,
takes what is in it and visits the worker. So each worker beyond the first keeps one request of its own open,
its anchor, which it posted to itself and does not answer.

An anchored worker without work does not go round with the host: it sits in its handler, where it costs
nothing. At most one worker, the porter, has no anchor and waits in the queue, as the host means it. A worker
alone never needs an anchor.

Whoever visits the queue first takes an anchor, also a foreign one, and answers it at once: its owner posts it
again. This cannot go on for long, because a worker without an anchor waits in the queue with the lock, and
then the next one is its own.

A worker that was asked to retire gets its anchor, ends what is open, and then stays in its handler, where
nothing new can reach it, until the host stops it.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Hashable

from genserve.crew import Asked, Place, State, ring

log = logging.getLogger(__name__)

HEADER = "X-Genserve-Anchor"
KNOCK = "knock"  # in the place of a token: no worker's, so that whoever takes it answers at once
LET_GO, NOT_MINE = 200, 409  # the answers to an anchor: it is not needed any more; another worker took it
SHARE_S = 0.02  # between two looks at the queue while another worker is busy
LOOK_S = 0.1  # between two looks at the table while all are idle: the porter may have died
STAY_S = 20.0  # most seconds in the handler, well below the host's responseTimeout
RETIRED_S = 60.0  # after this time the worker works on: who asked it to retire has not stopped it
AGAIN_S, FAULT_S = 0.002, 0.1  # before an anchor is posted again: another worker took it, or it failed


class Alone:
    """The same for a worker that shares no queue: it never has an anchor.

    Args:
        place: this worker's slot in the table, for those who look at it.
    """

    def __init__(self, place: Place | None = None) -> None:
        self._seat = place

    def sorted(self, tokens: dict[Hashable, str]) -> tuple[list[Hashable], list[Hashable]]:
        """Return the keys of this worker's own anchors, and of those that others posted.

        Args:
            tokens: of the anchors that the host brought, by their requests' keys.
        """
        return [], list(tokens)

    def nudge(self) -> None:
        """Have the host come, if that can be done."""

    def busy(self, n: int) -> None:
        """Note that n requests are open."""
        if self._seat:
            self._seat.put(state=State.BUSY, open=n)

    def idle(self, anchored: bool, answers: bool) -> bool:
        """Note that nothing is open.

        Args:
            anchored: the host has brought this worker's anchor.
            answers: the visit takes answers along.

        Returns:
            Whether to keep the anchor.
        """
        if self._seat:
            self._seat.put(state=State.OPEN, open=0)
        return False

    def holds_back(self, anchored: bool) -> bool:
        """Return whether finished answers wait until all that is open has ended."""
        return False


class Anchors(Alone):
    """Decide when a worker goes back to the host, and keep an anchor for it.

    `busy` and `idle` are for the thread that the host visits.

    Args:
        place: this worker's slot in the table.
        post: posts an anchor with a token to this worker's own model, waits for its answer, and returns the
            status; 0 if there was no answer.
    """

    def __init__(self, place: Place, post: Callable[[str], int]) -> None:
        super().__init__()  # without a place: it writes into the table itself
        self.place, self.token = place, uuid.uuid4().hex
        self._post = post
        self._state, self._n = State.OPEN, 0
        self._retired_at: float | None = None
        self._need, self._absent = threading.Event(), threading.Event()
        self._on_its_way = False  # an anchor was posted and is not answered
        self._bell = threading.Condition()
        self._rings = 0
        for run in (self._listen, self._keep, self._knock):
            in_background(run)
        if others := place.others():
            self._need.set()
            ring(others)

    @property
    def duty(self) -> Asked:
        """What this worker was asked to do."""
        return self.place.me.duty

    def sorted(self, tokens: dict[Hashable, str]) -> tuple[list[Hashable], list[Hashable]]:
        """Return the keys of this worker's own anchors, and of those that other workers posted."""
        mine = [key for key, token in tokens.items() if token == self.token]
        return mine, [key for key in tokens if key not in mine]

    def nudge(self) -> None:
        """Have something posted, so that the host comes: an anchor or, if it has one, a knock.

        With an anchor it waits for no requests, but for the queue's lock, which the porter's thread holds
        until one comes.
        """
        (self._absent if self._on_its_way else self._need).set()

    def holds_back(self, anchored: bool) -> bool:
        """Return whether finished answers wait for all that is open, because this worker retires."""
        return (anchored or self._on_its_way) and self.duty is Asked.RETIRE

    def busy(self, n: int) -> None:
        """Note that n requests are open; those who wait in the queue must let others at it."""
        begins = self._state is not State.BUSY
        with self.place.changes():
            self._put(State.BUSY, n)
            others = self.place.others()
        # A request that is done within the first visit rings no worker that sits.
        ring(m for m in others if m.state is State.OPEN or (m.state is State.SITS and not begins))

    def idle(self, anchored: bool, answers: bool) -> bool:
        """Note that nothing is open; wait in this process if that is right and no answer would wait, too."""
        until = time.monotonic() + STAY_S
        while True:
            with self._bell:
                rings = self._rings
            with self.place.changes():
                retire = self._retires()
                states = {m.state for m in self.place.others()}
                if not retire and not states & {State.OPEN, State.BUSY}:
                    self._put(State.OPEN)  # the porter
                    return False
                if not anchored:
                    self._put(State.OPEN)
                    self._need.set()
                    return False
                self._put(State.SITS if answers or not retire else State.RETIRED)
            if answers:
                return True
            somebody_works = not retire and State.BUSY in states
            left = min(until - time.monotonic(), SHARE_S if somebody_works else LOOK_S)
            if left <= 0:
                return True
            with self._bell:
                self._bell.wait_for(lambda: self._rings != rings, left)  # noqa: B023
            if somebody_works:
                return True  # perhaps there is work for this one, too

    def _retires(self) -> bool:
        """Return whether this worker is to retire; forget it if it was not stopped for long."""
        if self.duty is not Asked.RETIRE:
            self._retired_at = None
            return False
        if self._state is not State.RETIRED:
            self._retired_at = None
        elif self._retired_at is None:
            self._retired_at = time.monotonic()
        elif time.monotonic() - self._retired_at > RETIRED_S:
            log.warning("retired for %g s and not stopped: working on", RETIRED_S)
            self.place.put(duty=Asked.NOTHING)
            return False
        return True

    def _put(self, state: State, n: int = 0) -> None:
        if (state, n) != (self._state, self._n):
            self.place.put(state=state, open=n)
        self._state, self._n = state, n

    def _listen(self) -> None:
        """Hear the bell: let the thread in the handler look, and get an anchor if one is due."""
        while True:
            self.place.bell.recv(1)
            with self.place.changes():
                me = self.place.me
                if me.duty is Asked.RETIRE or (me.state is State.OPEN and self.place.others()):
                    self._need.set()
            with self._bell:
                self._rings += 1
                self._bell.notify_all()

    def _keep(self) -> None:
        """Post an anchor whenever one is due, until it comes to this worker."""
        while True:
            self._need.wait()
            self._need.clear()  # before the post: who needs one from now on may not be overheard
            self._on_its_way = True
            status = self._post(self.token)
            self._on_its_way = False
            if status == LET_GO:
                continue
            time.sleep(AGAIN_S if status == NOT_MINE else FAULT_S)
            if self.place.others() or self.duty is Asked.RETIRE:
                self._need.set()

    def _knock(self) -> None:
        """Post what is answered at once, whenever the host stays away though it has this worker's anchor."""
        while True:
            self._absent.wait()
            self._post(KNOCK)
            self._absent.clear()  # after the post: one at a time is enough


def in_background(run: Callable[[], None]) -> threading.Thread:
    """Run a function of a worker in a thread; if it fails, the process ends, and the host starts another."""

    def guarded() -> None:
        try:
            run()
        except BaseException:
            log.critical("%s broke down: this worker ends", run.__name__, exc_info=True)
            os._exit(1)

    thread = threading.Thread(target=guarded, name=run.__name__.strip("_"), daemon=True)
    thread.start()
    return thread
