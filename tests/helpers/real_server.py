"""Start a real TorchServe for tests, by scripts/serve, as a user does."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).parents[2]


def free_ports(n: int) -> int:
    """Return the first of n consecutive free ports."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    start = 18080 + 1000 * worker  # each worker of pytest has a range of its own
    for first in range(start, start + 1000, 10):
        probes = [socket.socket() for _ in range(n)]
        try:
            for k, probe in enumerate(probes):
                probe.bind(("127.0.0.1", first + k))
        except OSError:
            continue
        finally:
            for probe in probes:
                probe.close()
        return first
    raise RuntimeError("no free ports")


def answers(address: str) -> bool:
    """Return whether an address takes a connection, and answers 200 on it within a second."""
    try:
        return httpx.get(address, timeout=1).status_code == 200
    except httpx.TransportError:
        return False


def wait_until(value: Callable[[], Any], expected: Any, seconds: float = 30) -> None:
    """Wait until a value is the expected one; fail with the last value if that takes too long."""
    deadline = time.monotonic() + seconds
    while (current := value()) != expected:
        assert time.monotonic() < deadline, f"{current} after {seconds} s, and not {expected}"
        time.sleep(0.05)


@dataclass
class Server:
    """A real TorchServe with the archives this project ships."""

    port: int
    home: Path
    store: Path

    @property
    def management(self) -> str:
        return f"http://127.0.0.1:{self.port + 1}"

    @property
    def metrics(self) -> str:
        return f"http://127.0.0.1:{self.port + 2}"

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=120)

    @contextlib.contextmanager
    def running(self, start_s: float | None = None) -> Iterator["Server"]:
        """Start the server; when the block ends, and if the start fails, all its processes end.

        Args:
            start_s: how long the start may take; if not given, as long as scripts/serve waits.

        Raises:
            AssertionError: the start failed.
            subprocess.TimeoutExpired: it took longer.
        """
        try:
            done = self.serve("start", start_s)
            assert done.returncode == 0, done.stdout + done.stderr
            yield self
        finally:
            try:
                self.serve("stop")
            finally:  # a killed start may have written no list of its processes
                for process in self.processes():
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()

    @contextlib.contextmanager
    def registered(self, archive: str, name: str) -> Iterator[None]:
        """Serve an archive under one more name, which has had no request yet, until the block ends."""
        self.register(archive, name)
        try:
            yield
        finally:
            httpx.delete(f"{self.management}/models/{name}", timeout=200)

    def register(self, archive: str, name: str) -> None:
        """Register an archive of the store under a name, with one worker.

        Raises:
            AssertionError: the server refused it.
        """
        parameters = {"url": archive, "model_name": name, "initial_workers": "1", "synchronous": "true"}
        answer = httpx.post(f"{self.management}/models", params=parameters, timeout=120)
        assert answer.status_code == 200, answer.text

    def processes(self) -> list[psutil.Process]:
        """Return the processes of this server: the launcher, Java and the workers."""
        ours = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("LOG_LOCATION") == str(self.home / "logs"):
                    ours.append(process)
        return ours

    def command(self, *words: str) -> list[str]:
        """Return the command line of scripts/serve on this server."""
        options = ["--port", str(self.port), "--home", str(self.home), "--model-store", str(self.store)]
        return [sys.executable, str(ROOT / "scripts" / "serve"), *words, *options]

    def health(self, *flags: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/healthcheck on this server."""
        command = [sys.executable, str(ROOT / "scripts" / "healthcheck"), "--home", str(self.home), *flags]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def serve(
        self, command: str, seconds: float | None = None, *flags: str
    ) -> subprocess.CompletedProcess[str]:
        """Run scripts/serve on this server, from a shell whose PYTHONPATH names the work tree."""
        return subprocess.run(
            self.command(command, *flags),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
