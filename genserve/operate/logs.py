"""Read the logs of a server: what its host and its workers wrote, and what Java itself had to say."""

import os
import re
from collections import Counter
from pathlib import Path

HOST = "logs/ts_log.log"  # of the host and, line by line, of the workers; log4j2.xml lets it rotate
CONSOLE = "console.log"  # Java's own words; with them the whole log of a server before it had a log4j2.xml
END_BYTES = 2**20  # of a log, looked at for its last lines
DIED = "Backend worker process died."  # after it comes how the host's program ended, not why
STAMP = re.compile(r"^\d{4}-\d\d-\d\dT[\d:,]+ \[(\w+) *\] (\S+) (\S+) - ")


def end_of(path: Path, since: int = 0) -> list[str]:
    """Return the last lines of a file, of its last megabyte; of those after a byte, if it has not rotated."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since if size >= since else 0, size - END_BYTES))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def size(home: Path) -> int:
    """Return how long the host's log is, in bytes."""
    try:
        return (home / HOST).stat().st_size
    except OSError:
        return 0


def tail(home: Path, n: int = 25) -> str:
    """Return the last lines of the host's log, and of Java's own words if there are any."""
    lines = end_of(home / HOST)[-n:] + end_of(home / CONSOLE)[-n:]
    return "\n".join(lines) or "no log yet"


def failed_loads(home: Path, since: int) -> dict[str, int]:
    """Return how often each worker, by its number, ended before it had loaded, in the log after a byte."""
    pattern = re.compile(r" W-(\d+)-\S+ org\.pytorch\.serve\.wlm\.WorkerThread - Auto recovery failed again")
    return Counter(match[1] for line in end_of(home / HOST, since) if (match := pattern.search(line)))


def last_words(home: Path, worker: str, since: int, n: int = 3) -> list[str]:
    """Return the last lines of a worker, as it wrote them, before the host's program wrote that it died."""
    lines = []
    for line in end_of(home / HOST, since):
        stamp = STAMP.match(line)
        if stamp and stamp[3] == "MODEL_LOG" and stamp[2].startswith(f"W-{worker}-"):
            lines.append(line[stamp.end() :])
    if DIED in lines:
        lines = lines[: len(lines) - 1 - lines[::-1].index(DIED)]
    return lines[-n:]
