"""The tables of workers of a running server."""

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from genserve.crew import FILE, Asked, Crew, Member

_once = threading.Lock()  # a process that closes a table loses its locks on every other opening of it


def members(pids: Collection[int], temporary: Path | None) -> dict[int, Member]:
    """Return the workers that a table has, by their process.

    A worker's table is in its working directory, which Linux shows; elsewhere every folder into which the
    host unpacked an archive is looked through.

    Args:
        pids: of workers.
        temporary: the server's folder of temporary files, if it is known.
    """
    workers: dict[int, Member] = {}

    def read(crew: Crew) -> None:
        workers.update({member.pid: member for member in crew.members()})

    _each(pids, temporary, read)
    return workers


def ask(workers: Mapping[int, int], temporary: Path | None, duty: Asked) -> None:
    """Ask workers to retire, to drain, or to work on after all; one that is in no table is not asked.

    Args:
        workers: their processes, and the host's number for each.
        temporary: as in `members`.
    """

    def write(crew: Crew) -> None:
        with crew.changes():
            crew.ask([m.worker for m in crew.members() if workers.get(m.pid) == m.worker], duty)

    _each(workers.keys(), temporary, write)


def _each(pids: Collection[int], temporary: Path | None, do: Callable[[Crew], None]) -> None:
    """Call a function with every table in reach, one after the other."""
    folders = {str(folder) for folder in temporary.glob("models/*")} if temporary else set()
    for pid in pids:
        with contextlib.suppress(OSError):
            folders.add(os.readlink(f"/proc/{pid}/cwd"))
    for folder in sorted({os.path.realpath(folder) for folder in folders}):
        with _once, contextlib.suppress(OSError, ValueError):  # no table, or one that is being made
            crew = Crew(Path(folder) / FILE)
            try:
                do(crew)
            finally:
                crew.close()
