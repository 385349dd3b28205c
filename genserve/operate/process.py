"""The process of a server: is the one that was started still alive, and how is it signalled?"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from genserve.files import write_json
from genserve.places import kept

RECORD = "server.json"  # in the home of a server: what runs there
DEFUNCT = "ZX"  # states of a process in /proc that has ended


def home() -> Path:
    """Return the folder of this machine's server if no flag names another: GENSERVE_HOME, or .serve."""
    return Path(os.environ.get("GENSERVE_HOME") or kept(".serve"))


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other commands from starting a server in a home, or from changing its record."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def running(folder: Path, name: str = RECORD) -> dict[str, Any] | None:
    """Return the server of this home, if it is alive and the same process that was started.

    Args:
        name: file that says what was started.
    """
    try:
        server: dict[str, Any] = json.loads((folder / name).read_text())
        same = alive(server["pid"]) and born(server["pid"]) == server["born"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return server if same else None


def record(folder: Path, server: dict[str, Any], name: str = RECORD) -> None:
    """Write what runs in a home."""
    write_json(folder / name, server)


def born(pid: int) -> str:
    """Return when a process began: a number that is used again is another process."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def state(pid: int) -> str:
    """Return the letter that Linux has for the state of a process ("T" is stopped), "" where it has none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Return whether a process of ours has not ended."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)  # our own dead child would count until we look at it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, PermissionError):  # or somebody else's: the number was used again
        return False
    return state(pid) not in DEFUNCT or not state(pid)


def kill_group(pid: int) -> None:
    """Kill a server and its workers, which are one process group, at once."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End a block by TimeoutError when it takes too long, also in the middle of a wait for a lock."""

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
