"""Give a version of a model more workers or fewer, without losing a request."""

import time

from genserve.crew import Asked
from genserve.operate.api import ManagementError, Server
from genserve.operate.reasons import Log
from genserve.operate.registration import check_number, held, put
from genserve.operate.versions import Say, Version, Worker, ask, plural, quiet, version_of
from genserve.operate.waiting import (
    LONG_LOOK_S,
    READY_S,
    TOO_LONG,
    WAIT_S,
    wait_drained,
    wait_idle,
    wait_ready,
    wait_retired,
)


def scale(
    server: Server,
    name: str,
    workers: int,
    version: str | None = None,
    *,
    now: bool = False,
    wait_s: float = WAIT_S,
    ready_s: float = READY_S,
    say: Say = quiet,
) -> Version:
    """Give a version a number of workers; nothing that is open in those that go is lost.

    Args:
        workers: 0 to SLOTS; with 0 the version stays registered and is answered 503.
        version: the default one if not given.
        now: do not wait for the workers that go; what they have open may be answered 500.
        wait_s: seconds that requests may take to end.
        ready_s: seconds that new workers may take to load.

    Raises:
        ManagementError: no such model, the new workers do not come up, or those that go do not end their
            requests; then the version has the workers that it had.
    """
    check_number(workers)
    with held(server, name):
        state = version_of(server, name, version)
        return resize(server, state, workers, now=now, wait_s=wait_s, ready_s=ready_s, say=say)


def resize(
    server: Server,
    state: Version,
    workers: int,
    *,
    now: bool = False,
    wait_s: float = WAIT_S,
    ready_s: float = READY_S,
    say: Say = quiet,
) -> Version:
    """Do what `scale` does, under the lock of the model."""
    name = state.name
    staying = next((k for k, w in enumerate(state.workers) if w.leaving), len(state.workers))
    staying = min(staying, workers)
    if going := state.workers[staying:]:
        state = shrink(server, state, going, wait_s=wait_s, now=now, say=say)
    if workers > staying:
        log = Log(server)
        try:
            say(f"starting {plural(workers - staying, 'worker')} of {name} {state.version}")
            put(server, name, state.version, workers)
            state = wait_ready(server, name, state.version, workers, seconds=ready_s, log=log)
        except BaseException:
            put(server, name, state.version, staying)
            raise
    return state


def shrink(
    server: Server, version: Version, going: tuple[Worker, ...], *, wait_s: float, now: bool, say: Say
) -> Version:
    """Stop the last workers of a version once they have ended what they have open; return the version.

    Raises:
        ManagementError: they do not end it in time; then they work on.
    """
    name, number = version.name, version.version
    staying = len(version.workers) - len(going)
    if not now and any(worker.ready for worker in going):
        ids = {worker.id for worker in going}
        try:
            if version.in_reach and (version.continuous or not staying):
                say(f"waiting for {plural(len(going), 'worker')} of {name} {number} to end what is open")
                (wait_retired if staying else wait_drained)(server, version, ids, wait_s)
            else:
                about = f"{name} {number} takes a batch at a time: what comes as a worker stops"
                say(f"{about if version.in_reach else f'what {name} {number} has open'} may be answered 500")
                wait_idle(server, version, ids, wait_s)
        except BaseException:
            ask(server, going, Asked.NOTHING)
            raise
    put(server, name, number, staying)
    until = time.monotonic() + READY_S
    while len((left := version_of(server, name, number)).workers) != staying:
        if time.monotonic() > until:
            raise ManagementError(
                f"{name} {number} still has {plural(len(left.workers), 'worker')}, not {staying}", TOO_LONG
            )
        time.sleep(LONG_LOOK_S)
    if left.queued and not staying:
        say(f"{plural(left.queued, 'request')} came in the last moment and will wait for new workers")
    return left
