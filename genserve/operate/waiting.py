"""Wait until a version of a model has nothing open, or its workers have loaded it."""

import time
from collections.abc import Iterator

from genserve.crew import Asked, State
from genserve.operate.api import ManagementError, Server
from genserve.operate.reasons import Log
from genserve.operate.versions import Say, Version, Worker, ask, plural, quiet, version_of

LOOKS = 5  # one after the other: a request is in no queue and no table while it goes from one to the other
LOOK_S, LONG_LOOK_S = 0.02, 0.2  # between two looks that see nothing open; else
RETIRE_LOOK_S = 0.05
DRAIN_S = 1.0  # a worker notices within half a second that it is to refuse what is new
WAIT_S = 150.0  # for open requests to end; longer than `handler.deadline` in handlers/continuous.yaml
ENDS_MAX = 2  # of a worker's processes before it has loaded; the first may be one that had loaded before
READY_S = 180.0  # for workers to load a model
TOO_LONG = 504  # status of a ManagementError: what was waited for did not happen in time


def wait_empty(server: Server, version: Version, seconds: float = WAIT_S, say: Say = quiet) -> None:
    """Return when no request of a version waits or is open.

    Without the table of its workers that is known only after as long as a request may take.

    Args:
        seconds: to wait at most; more than the archive's deadline.

    Raises:
        ManagementError: it takes longer.
    """
    until = time.monotonic() + seconds
    quiet, last = 0, ""
    while quiet < LOOKS:
        now = version_of(server, version.name, version.version)
        quiet = quiet + 1 if now.empty else 0
        if now.empty is None and not now.queued and time.monotonic() > until:
            return  # its deadline has passed for everything that came before
        line = waiting_for(now)
        if not now.empty and line != last:
            say(f"waiting for {line}")
            last = line
        if not quiet and time.monotonic() > until:
            raise ManagementError(
                f"{line} after {seconds:g} s: requests go on coming, or one takes longer", TOO_LONG
            )
        time.sleep(LOOK_S if quiet else LONG_LOOK_S)


def waiting_for(version: Version) -> str:
    """Return in words what a version has open."""
    known = "what is open in" if version.open is None else f"{plural(version.open, 'open request')} of"
    queue = f", {version.queued} in the queue" if version.queued else ""
    unknown = " (its table of workers is not in reach)" if version.open is None else ""
    return f"{known} {version.name} {version.version}{queue}{unknown}"


def wait_retired(server: Server, version: Version, going: set[int], seconds: float) -> None:
    """Have workers end what they have open and take no more; return when they have.

    One that is started again in the meantime is asked again, and so is one that went on because it was not
    stopped for long.

    Raises:
        ManagementError: they do not end in time.
    """
    for _, ours in _looks(server, version, going, seconds):
        ask(server, [worker for worker in ours if not worker.leaving], Asked.RETIRE)
        if all(worker.state == State.RETIRED.name or not worker.ready for worker in ours):
            return


def wait_drained(server: Server, version: Version, going: set[int], seconds: float) -> None:
    """Have workers refuse whatever is new; return when nothing is open and nothing waits in the queue.

    Raises:
        ManagementError: they do not end in time.
    """
    quiet_since: float | None = None
    for now, ours in _looks(server, version, going, seconds):
        deaf = [worker for worker in ours if worker.ready and not worker.leaving]
        ask(server, deaf, Asked.DRAIN)
        if deaf or now.queued or any(worker.open for worker in ours):
            quiet_since = None
        elif quiet_since is None:
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since > DRAIN_S:
            return


def wait_idle(server: Server, version: Version, going: set[int], seconds: float) -> None:
    """Return when workers that cannot be asked have nothing open, as far as that is known.

    Raises:
        ManagementError: they go on working.
    """
    for now, ours in _looks(server, version, going, seconds):
        if not now.queued and not any(w.open or w.state == State.BUSY.name for w in ours):
            return


def _looks(
    server: Server, version: Version, going: set[int], seconds: float
) -> Iterator[tuple[Version, list[Worker]]]:
    """Look at a version and at some of its workers, again and again; a problem ends that in time."""
    until = time.monotonic() + seconds
    while True:
        now = version_of(server, version.name, version.version)
        yield now, [worker for worker in now.workers if worker.id in going]
        if time.monotonic() > until:
            raise ManagementError(f"{waiting_for(now)} after {seconds:g} s: nothing was changed", TOO_LONG)
        time.sleep(RETIRE_LOOK_S)


def wait_ready(server: Server, name: str, version: str, workers: int, *, seconds: float, log: Log) -> Version:
    """Return a version when this many workers have loaded it and it has no others.

    Raises:
        ManagementError: one of them ended again and again while it loaded, or it takes longer.
    """
    until = time.monotonic() + seconds
    loading: dict[int, set[int]] = {}  # processes of a worker that is not ready
    while True:
        now = version_of(server, name, version)
        if now.ready == len(now.workers) == workers:
            return now
        for worker in now.workers:
            processes = loading.setdefault(worker.id, set())
            if worker.ready:
                processes.clear()  # if it dies later, that is no fault of its loading
            elif worker.pid > 0:
                processes.add(worker.pid)
            if len(processes) > ENDS_MAX:
                reason = log.reason(worker.id, name, version)
                raise ManagementError(f"a worker of {name} {version} does not come up: {reason}", 502)
        if time.monotonic() > until:
            reasons = [log.reason(worker.id, name, version) for worker in now.workers if not worker.ready]
            raise ManagementError(
                f"{now.ready} of {plural(workers, 'worker')} of {name} {version} after {seconds:g} s: "
                + "; ".join(reasons), TOO_LONG,
            )  # fmt: skip
        time.sleep(LONG_LOOK_S)
