"""The process of a server: is the one that was started still alive?"""

import contextlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any


def running(home: Path) -> dict[str, Any] | None:
    """Return the server of this home, if it is alive and the same process that was started."""
    try:
        server: dict[str, Any] = json.loads((home / "server.json").read_text())
        same = alive(server["pid"]) and born(server["pid"]) == server["born"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return server if same else None


def born(pid: int) -> str:
    """Return when a process began: a number that is used again is another process."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    with contextlib.suppress(FileNotFoundError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def alive(group: int) -> bool:
    """Return whether a process of the group is left."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(group, os.WNOHANG)  # our own dead child would count until we look at it
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's: the number was used again
    return True
