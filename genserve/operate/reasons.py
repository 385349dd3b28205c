"""Why a worker does not come up, from the server's log of its workers."""

import re
from pathlib import Path

from genserve.operate.api import Server

FILE = "model_log.log"
TAIL = 2**18  # bytes of the log that are read
LINES = 3  # of a worker that says nothing of an exception
EXCEPTION = re.compile(r"[A-Za-z_][\w.]*(?:Error|Exception|Interrupt|Exit)\b")  # the last line of a traceback


class Log:
    """The log, from now on.

    Args:
        server: whose log it is; if that is not in reach, the reasons say where to look.
    """

    def __init__(self, server: Server) -> None:
        self._path = server.logs / FILE if server.logs else None
        self._began = _size(self._path)

    def reason(self, worker: int, name: str, version: str) -> str:
        """Return why a worker does not load, in one line."""
        if self._path is None or not self._path.exists():
            return f"its log says why ({FILE}, which is not in reach)"
        size = _size(self._path)
        began = self._began if self._began <= size else 0  # a new log was begun in the meantime
        with self._path.open("rb") as file:
            file.seek(max(began, size - TAIL))
            text = file.read().decode(errors="replace")
        mark = re.compile(rf"W-{worker}-{re.escape(name)}_{re.escape(version)}\S* MODEL_LOG - (.*)")
        lines = [match[1] for match in map(mark.search, text.splitlines()) if match]
        first = next((k for k, line in enumerate(lines) if line.startswith("Traceback")), len(lines))
        for line in lines[first:]:
            if EXCEPTION.match(line):
                return line
        return f"the end of {self._path}: {' / '.join(lines[-LINES:]) or 'nothing of this worker'}"


def _size(path: Path | None) -> int:
    return path.stat().st_size if path and path.exists() else 0
