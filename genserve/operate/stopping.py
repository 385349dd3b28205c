"""Stop a server: it ends what it has open, and refuses the rest."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

from genserve.operate import management
from genserve.operate.crews import members
from genserve.operate.process import RECORD, alive, kill_group, limited, locked, record, running
from genserve.operate.starting import Starting

MARGIN_S = 15  # of a stop, over the deadline of the archives: the host's own end takes two seconds
TELL_S = 3.0  # between two lines that say what a stop waits for
LOOK_S = 3.0  # for the tables of workers, of which a process may have been stopped inside its lock
DEADLINE = re.compile(r"^\s+deadline:\s*(\d+(?:\.\d+)?)\s*(?:#|$)", re.MULTILINE)  # in model-config.yaml
MEND_S = 3.0  # between two looks at what runs beside a server in the foreground
FRONT_S = 2.0  # for the front of the management API
KILLED = 128 + signal.SIGKILL  # exit code


def stop(home: Path, server: dict[str, Any], limit_s: float | None = None) -> None:
    """End a server once nothing is open, and remove its temporary files; print what it waits for.

    Args:
        home: of the server.
        server: its record.
        limit_s: seconds after which it is killed; if not given, the deadline of its archives and a margin.
    """
    ask(home, server)
    wait = Waiting(server, limit_s)
    while alive(server["pid"]):
        try:
            if wait.over():
                print(f"killed{wait.open()}", flush=True)
                break
            time.sleep(0.1)
        except KeyboardInterrupt:
            if wait.interrupted:
                print(f"killed{wait.open()}", flush=True)
                break
            wait.interrupted = True
            print(f"still stopping{wait.open()}; Ctrl-C once more kills it", flush=True)
    else:
        print("stopped", flush=True)
    clean(home, server)


def attend(
    home: Path,
    process: subprocess.Popen[bytes],
    starting: Starting,
    limit_s: float | None,
    mend: Callable[[], None],
) -> int:
    """Wait for a server in the foreground; SIGTERM and SIGINT stop it, the second one kills it.

    Args:
        mend: is called every few seconds until then, and starts again what has ended beside the server.

    Returns:
        the exit code: 0 if it stopped as it was told to, 137 if it was killed, else what Java ended with.
    """
    signals: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        signals.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    wait: Waiting | None = None
    announced = killed = False
    mended = time.monotonic()
    while process.poll() is None:
        if signals and wait is None:
            ask(home, starting.server)
            wait = Waiting(starting.server, limit_s)
        if wait is not None and not killed and (len(signals) > 1 or wait.over()):
            print(f"killed{wait.open()}", file=sys.stderr, flush=True)
            kill_group(process.pid)
            killed = True
        if wait is None and not announced and (starting.look() or starting.late()):
            print(starting.summary(), file=sys.stderr, flush=True)
            announced = True
        if wait is None and time.monotonic() - mended > MEND_S:
            mended = time.monotonic()
            mend()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    clean(home, starting.server)
    if wait is None:
        return process.returncode if process.returncode > 0 else 128 - process.returncode
    return KILLED if killed else 0


def ask(home: Path, server: dict[str, Any]) -> None:
    """Tell Java, and no other process, to stop; its workers let it wait until nothing is open."""
    with locked(home):
        if running(home):
            record(home, server | {"stopping": True})
    with contextlib.suppress(ProcessLookupError):
        os.kill(server["pid"], signal.SIGTERM)


def clean(home: Path, server: dict[str, Any]) -> None:
    """Kill what is left of a server; remove its record and temporary files, unless a newer one has them."""
    kill_group(server["pid"])
    if front := server.get("front"):
        until = time.monotonic() + FRONT_S  # it ends by itself once the host has
        while alive(front):
            if time.monotonic() > until:
                kill_group(front)
            time.sleep(0.02)
    with locked(home):
        if running(home) is None:
            (home / RECORD).unlink(missing_ok=True)
            shutil.rmtree(server["temporary"], ignore_errors=True)


class Waiting:
    """A stop that goes on: for how long, and for what.

    Args:
        server: the record of the server.
        limit_s: for how long, or None for the deadline of its archives and a margin.
    """

    def __init__(self, server: dict[str, Any], limit_s: float | None) -> None:
        self._server, self._began = server, time.monotonic()
        self._told = self._began - TELL_S + 1  # a stop of a server at rest takes two seconds and says nothing
        self._limit_s = deadline(Path(server["temporary"])) + MARGIN_S if limit_s is None else limit_s
        self.interrupted = False

    def over(self) -> bool:
        """Return whether it has taken too long; say now and then what it waits for."""
        now = time.monotonic()
        if now - self._told > TELL_S:
            self._told = now
            if text := self.open():
                left = self._began + self._limit_s - now
                print(f"stopping{text}; at most {max(0.0, left):.0f} s more", file=sys.stderr, flush=True)
        return now - self._began > self._limit_s

    def open(self) -> str:
        """Return what is open, as the end of a sentence."""
        counts = {model: n for model, n in open_requests(self._server).items() if n}
        return ", open: " + ", ".join(f"{model} {n}" for model, n in counts.items()) if counts else ""


def open_requests(server: dict[str, Any]) -> dict[str, int]:
    """Return the number of open requests of each model whose workers have a table."""
    counts: Counter[str] = Counter()
    try:
        with limited(LOOK_S):
            address = server["management"]
            names = [entry["modelName"] for entry in management.get(address, "/models?limit=1000")["models"]]
            models = {
                worker["pid"]: name
                for name in names
                for version in management.get(address, f"/models/{quote(name, safe='')}/all")
                for worker in version["workers"]
            }
            for pid, member in members(models, Path(server["temporary"])).items():
                if pid in models:
                    counts[models[pid]] += member.open
    except (OSError, HTTPException, ValueError, LookupError, TypeError):
        pass  # it has ended, or is too busy to tell
    return dict(counts)


def deadline(temporary: Path) -> float:
    """Return the longest time in seconds that an archive of a server gives a request, 0 if none says it."""
    texts = [path.read_text(errors="replace") for path in temporary.glob("models/*/*.yaml")]
    return max(
        (float(seconds) for text in texts for seconds in DEADLINE.findall(text)),
        default=0.0,
    )
