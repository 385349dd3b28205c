"""Follow a server that starts, until every model is ready or has failed."""

import contextlib
import sys
import time
from http.client import HTTPException
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import quote

from genserve.operate import management
from genserve.operate.environment import SERVE
from genserve.operate.logs import failed_loads, last_words, tail
from genserve.operate.process import alive

BASE_S, EACH_S = 120, 40  # that a start may take: for Java, and for each archive, as all load at once
TELL_S = 15  # between lines that say what still loads
LOADS_MAX = 2  # a worker that ends so often before it has loaded will go on so
SOME_FAILED = 3  # exit code: others are served


def limit_s(archives: int) -> float:
    """Return the seconds that a server may take until this many archives are loaded, on a slow machine."""
    return BASE_S + EACH_S * archives


class Starting:
    """What has become of each model so far.

    A worker that ends before it has loaded its model is started again and again by the host, which lets
    requests wait for as long as that goes on. So such a model is left without a worker: its requests get 503.

    Args:
        home: of the server.
        server: its record.
        left_out: files of the store that cannot be served, and why.
    """

    def __init__(self, home: Path, server: dict[str, Any], left_out: dict[str, str]) -> None:
        self._home, self._server = home, server
        self._log_from = server["log_from"]
        self._began = time.monotonic()
        self.left_out = left_out
        self.ready: list[str] = []
        self.loading: list[str] = sorted(set(server["archives"]))
        self.failed: dict[str, str] = {}  # model -> why

    @property
    def server(self) -> dict[str, Any]:
        """The record of the server."""
        return self._server

    def look(self) -> bool:
        """Look at the server once; return whether it has finished."""
        models = management.workers(self._server["management"])
        if models is None:
            return False
        for model in self._server["archives"]:  # the host has tried them all by the time it answers
            if model not in models:
                self.failed.setdefault(model, f"the host did not take its archive; {SERVE} logs")
        failed = {worker for worker, n in failed_loads(self._home, self._log_from).items() if n >= LOADS_MAX}
        for model, workers in models.items():
            if model in self.failed:
                continue
            if lost := failed & workers.keys():
                self._give_up(model, min(lost))
            elif not workers:
                self.failed[model] = f"it has no worker; {SERVE} logs"
        others = {
            model: set(workers.values()) for model, workers in models.items() if model not in self.failed
        }
        self.ready = [model for model, states in others.items() if states == {"READY"}]
        self.loading = [model for model in others if model not in self.ready]
        return len(self.ready) == len(others) and bool(models)

    @property
    def limit_s(self) -> float:
        """The seconds that this start may take."""
        return limit_s(len(self._server["archives"]))

    def late(self) -> bool:
        """Return whether it has taken longer than a start may."""
        return time.monotonic() - self._began > self.limit_s

    def summary(self) -> str:
        """Return what is ready, and what is not and why."""
        address, seconds = f"http://127.0.0.1:{self._server['port']}", time.monotonic() - self._began
        lines = [f"{file} is left out: {reason}" for file, reason in self.left_out.items()]
        lines += [f"{model} is not ready: {reason}" for model, reason in self.failed.items()]
        if self.loading:
            lines.append(
                f"still loading after {seconds:.0f} s: {', '.join(self.loading)} "
                f"({SERVE} status says when they are ready)"
            )
        if self.ready:
            lines.append(f"ready after {seconds:.1f} s on {address}: {', '.join(self.ready)}")
        return "\n".join(lines)

    def _give_up(self, model: str, worker: str) -> None:
        words = last_words(self._home, worker, self._log_from)
        reason = f"its worker ended {LOADS_MAX} times before it had loaded, so it gets none and answers 503"
        self.failed[model] = "\n    ".join([f"{reason}; its last words:", *words])
        with contextlib.suppress(OSError, HTTPException):
            path = f"/models/{quote(model, safe='')}?min_worker=0&max_worker=0"
            management.put(self._server["management"], path)


def wait(home: Path, starting: Starting) -> None:
    """Wait until a server in the background has started; print what became of it.

    Raises:
        SystemExit: with 3 if only some models are ready, also because it takes too long, else with what went
            wrong.
    """
    pid, last = starting.server["pid"], time.monotonic()
    while not starting.look():
        if time.monotonic() - last > TELL_S:
            print(f"loading {', '.join(starting.loading)} ...", flush=True)
            last = time.monotonic()
        if not alive(pid):
            ended(home)
        if starting.late():
            print(starting.summary(), file=sys.stderr)
            if starting.ready:
                sys.exit(SOME_FAILED)
            sys.exit(f"no model is ready after {starting.limit_s:.0f} s; the end of the log:\n{tail(home)}")
        time.sleep(0.2)
    partly = bool(starting.failed or starting.left_out)
    print(starting.summary(), file=sys.stderr if partly else sys.stdout, flush=True)
    if not starting.ready:
        sys.exit(f"no model is ready; {SERVE} stop ends the server")
    if partly:
        sys.exit(SOME_FAILED)


def ended(home: Path) -> NoReturn:
    """Exit because the server ended while it started."""
    if not (home / "server.json").exists() or "stopping" in (home / "server.json").read_text():
        sys.exit("the server was stopped while it started")
    sys.exit(f"the server ended; the end of its log:\n{tail(home)}")
