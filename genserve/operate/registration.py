"""Register archives at a running server, so that a failure leaves nothing behind.

The host's own call would wait for the workers, while one of its threads, and every connection that the thread
serves, stands still; and a load that failed would stay as a model without workers.
"""

import contextlib
import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from genserve.crew import SLOTS
from genserve.operate.api import ManagementError, Server
from genserve.operate.offered import Offered, in_store, offered, registered
from genserve.operate.reasons import Log
from genserve.operate.versions import Say, Version, described, listed, models, quiet, version_of, versions
from genserve.operate.waiting import READY_S, wait_ready


@contextlib.contextmanager
def held(server: Server, name: str) -> Iterator[None]:
    """Keep every other command of this machine from changing a model until the block ends.

    Raises:
        ManagementError: another one changes it now.
    """
    key = hashlib.sha256(f"{server.management} {name}".encode()).hexdigest()[:16]
    folder = server.temporary or Path(tempfile.gettempdir())  # the server's own if that is in reach
    path = folder / f"genserve-{key}.lock"
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT, 0o644)
    except PermissionError:  # it is another user's, in a folder for everybody
        descriptor = os.open(path, flags)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ManagementError(
            f"{name} is being changed by another command: try again when it has ended", 409
        ) from None
    try:
        yield
    finally:
        os.close(descriptor)


def register(
    server: Server, file: Path, workers: int = 1, *, ready_s: float = READY_S, say: Say = quiet
) -> Version:
    """Register an archive and wait for its workers; return its version on the server.

    Args:
        file: in the server's model store, or anywhere else if the store is in reach: then it is copied.
        workers: 0 to SLOTS.
        ready_s: seconds that the workers may take to load.

    Raises:
        ManagementError: the archive cannot be registered, or its workers do not come up; then it is not
            registered.
    """
    check_number(workers)
    archive = offered(server, file)
    with held(server, archive.name or archive.file), in_store(server, archive, say):
        return add(server, archive, workers, ready_s=ready_s, say=say)


def add(server: Server, archive: Offered, workers: int, *, ready_s: float, say: Say) -> Version:
    """Register an archive that is in the store, as `register` does, under the lock of its model."""
    existing = versions(server, archive.name) if archive.name in models(server) else []
    if archive.version in [one.version for one in existing]:
        raise ManagementError(
            f"{archive.name} {archive.version} is registered already; the server has {listed(existing)}: "
            "build the archive with another --version, or delete that one first", 409,
        )  # fmt: skip
    before, log = registered(server), Log(server)
    say(f"registering {archive.file}")
    try:
        server.call("POST", url=archive.file, initial_workers=workers, synchronous="false")
        new = {(archive.name, archive.version)} if archive.name else registered(server) - before
        name, version = next(iter(new))
        if version_of(server, name, version).target != workers:  # the archive's minWorkers was stronger
            put(server, name, version, workers)
        now = wait_ready(server, name, version, workers, seconds=ready_s, log=log)
    except BaseException:
        _unregister(server, before, archive.name, say)
        raise
    if workers and described(server, now) is None:
        say(f"{name} {version} is no archive of genserve's: it is served, but what it has open is not known")
    return now


def _unregister(server: Server, before: set[tuple[str, str]], name: str, say: Say) -> None:
    """Unregister what was not registered before; of one model only, if its name is known."""
    try:
        for one, version in registered(server) - before:
            if name in ("", one):
                server.call("DELETE", one, version)
                say(f"undone: {one} {version} is not registered")
    except ManagementError as problem:  # the first problem is the one to raise
        say(f"not undone, `genserve models list` has how things stand: {problem}")


def put(server: Server, name: str, version: str, workers: int) -> None:
    """Tell the host how many workers a version is to have, and do not wait."""
    server.call("PUT", name, version, min_worker=workers, max_worker=workers)


def check_number(workers: int) -> None:
    """Raise a ManagementError if a version cannot have this many workers."""
    if not 0 <= workers <= SLOTS:
        raise ManagementError(f"a version has 0 to {SLOTS} workers, got {workers}", 400)
