"""The workers of one version of a model: a table in a file that all of them share.

Every worker has a slot: who it is, what it does, how many requests it has open. It holds a lock on its slot,
which the system frees when the process dies, however it dies. So the table is right without a clean end. One
more lock is for changes: whoever looks at several slots or changes one holds it.

A worker is rung by a datagram to its bell, a port on loopback. The datagram says nothing: the worker looks at
the table. Others (`genserve models`, the health check) open the table by its path, and need no slot.

Source of the locks: POSIX.1-2017, fcntl, advisory record locks. They belong to a process and end when it
closes any descriptor of the file, so a process opens a table once.
"""

import contextlib
import fcntl
import mmap
import os
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import astuple, dataclass, replace
from enum import IntEnum
from pathlib import Path

SLOTS = 64
ROW = struct.Struct("=iiiiiidd24x")  # the fields of a Member behind its slot
CHANGES = SLOTS * ROW.size  # the byte whose lock is for changes
FILE = "crew"  # its name in the folder that the host unpacked a version into


class State(IntEnum):
    """What a worker does."""

    OPEN = 1  # nothing is open; it waits in the host's queue for the next request, or is about to
    SITS = 2  # nothing is open; it waits in its own process and leaves the host's queue to others
    BUSY = 3  # requests are open
    RETIRED = 4  # nothing is open, and it takes no more: it may be stopped


class Asked(IntEnum):
    """What a worker was asked to do."""

    NOTHING = 0
    RETIRE = 1  # to take no more requests and to end those it has; the other workers take what comes
    DRAIN = 2  # to refuse new requests with 503, as before the server stops; for the last worker


@dataclass(frozen=True)
class Member:
    """A living worker as the table has it."""

    slot: int
    pid: int
    worker: int  # the host's number for it
    state: State
    open: int  # requests
    bell: int  # UDP port on loopback
    duty: Asked
    visited: float  # time.monotonic at which the host came or went last; one clock for all processes
    evaluating_since: float  # time.monotonic at which its longest running evaluation began; 0 if none runs


class Crew:
    """The table, for a process that has no slot in it.

    Args:
        path: of the file.

    Raises:
        FileNotFoundError: there is no table, so no worker of this version ever ran.
        OSError: the file cannot be opened for writing.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("r+b", buffering=0)
        if os.fstat(self._file.fileno()).st_size < SLOTS * ROW.size:  # the first worker is about to make it
            self._file.close()
            raise FileNotFoundError(f"{path}: no table yet")
        self._map = mmap.mmap(self._file.fileno(), SLOTS * ROW.size)
        self._thread = threading.RLock()
        self._depth = 0
        self._own: int | None = None

    def close(self) -> None:
        """Close the file, which gives up a slot."""
        self._map.close()
        self._file.close()

    @contextlib.contextmanager
    def changes(self) -> Iterator[None]:
        """Keep every other process and thread from looking at the table or changing it."""
        with self._thread:
            if not self._depth:
                fcntl.lockf(self._file, fcntl.LOCK_EX, 1, CHANGES)
            self._depth += 1
            try:
                yield
            finally:
                self._depth -= 1
                if not self._depth:
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, CHANGES)

    def members(self) -> list[Member]:
        """Return the living workers by their slots; slots of dead ones are made free."""
        with self.changes():
            members = []
            for slot, row in enumerate(ROW.iter_unpack(self._map)):
                pid, worker, state, n, bell, duty, visited, since = row
                if pid and slot != self._own and self._lock(slot):
                    self._map[slot * ROW.size : (slot + 1) * ROW.size] = bytes(ROW.size)
                    fcntl.lockf(self._file, fcntl.LOCK_UN, 1, slot)
                elif pid:
                    about = (slot, pid, worker, State(state), n, bell, Asked(duty), visited, since)
                    members.append(Member(*about))
            return members

    def ask(self, workers: Iterable[int], duty: Asked) -> None:
        """Ask workers, by the host's numbers, to retire, to drain, or to work on after all.

        Raises:
            LookupError: one of them is not alive.
        """
        with self.changes():
            by_number = {member.worker: member for member in self.members()}
            members = [by_number[worker] for worker in workers]
            for member in members:
                self._write(replace(member, duty=duty))
        ring(members)

    def _lock(self, slot: int) -> bool:
        """Return whether the lock of a slot could be had, so that it is not a living process's."""
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
        except OSError:
            return False
        return True

    def _write(self, member: Member) -> None:
        _, *row = astuple(member)
        ROW.pack_into(self._map, member.slot * ROW.size, *row)


class Place(Crew):
    """The table, for a worker: it takes a slot and has a bell.

    Args:
        path: of the file, which is made if it is not there.
        worker: the host's number for this worker.

    Raises:
        OSError: the file cannot be written, or every slot is taken.
    """

    def __init__(self, path: Path, worker: int) -> None:
        with path.open("ab") as file:  # closed before the descriptor that holds locks is opened
            if os.fstat(file.fileno()).st_size < SLOTS * ROW.size:
                file.write(bytes(SLOTS * ROW.size))  # no hole, so a full disk shows here
        super().__init__(path)
        self.bell = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.bell.bind(("127.0.0.1", 0))
        with self.changes():
            self._own = next((slot for slot in range(SLOTS) if self._lock(slot)), None)
            if self._own is not None:
                bell, now = self.bell.getsockname()[1], time.monotonic()
                self._write(
                    Member(self._own, os.getpid(), worker, State.OPEN, 0, bell, Asked.NOTHING, now, 0.0)
                )
        if self._own is None:
            self.close()
            raise OSError(f"{path}: a version has at most {SLOTS} workers")

    def close(self) -> None:
        """Give up the slot and the bell."""
        super().close()
        self.bell.close()

    @property
    def me(self) -> Member:
        """This worker as the table has it."""
        assert self._own is not None
        with self.changes():
            pid, worker, state, n, bell, duty, visited, since = ROW.unpack_from(
                self._map, self._own * ROW.size
            )
        return Member(self._own, pid, worker, State(state), n, bell, Asked(duty), visited, since)

    def others(self) -> list[Member]:
        """Return the living workers but this one."""
        return [member for member in self.members() if member.slot != self._own]

    def put(self, **fields: float) -> None:
        """Write fields of this worker's Member; the others stay.

        Raises:
            TypeError: there is no such field.
        """
        with self.changes():
            self._write(replace(self.me, **fields))  # type: ignore[arg-type]


def ring(members: Iterable[Member]) -> None:
    """Ring the bells of workers; one that has died hears nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
        for member in members:
            with contextlib.suppress(OSError):
                out.sendto(b"!", ("127.0.0.1", member.bell))
