"""Start a real gateway for tests, by `genserve gateway`, in front of a real server."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import program
from real_server import ROOT, Server, answers, free_ports, wait_until

CLIENT, ADMIN = "client-token-of-tests", "admin-token-of-tests"


@dataclass
class Gateway:
    """A gateway in front of a server.

    Args:
        folder: of its outputs, runs and log.
    """

    server: Server
    port: int
    folder: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, token: str | None = None) -> httpx.Client:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.url, timeout=120, headers=headers)

    def command(self, *flags: str) -> list[str]:
        """Return its command line."""
        return [
            sys.executable, "-m", "genserve", "gateway", "--port", str(self.port),
            "--server-port", str(self.server.port), "--home", str(self.server.home),
            "--outputs", str(self.folder / "outputs"), "--runs", str(self.folder / "runs"), *flags,
        ]  # fmt: skip

    @contextlib.contextmanager
    def running(self, *flags: str, **environment: str) -> Iterator["Gateway"]:
        """Start it; when the block ends, it ends."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (
            (self.folder / "log").open("ab") as log,
            program.background(
                self.command(*flags),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env=os.environ | environment,
            ) as process,
        ):
            wait_until(lambda: process.poll() is not None or answers(f"{self.url}/live"), True, 120)
            assert process.poll() is None, (self.folder / "log").read_text()
            yield self
            process.terminate()
            process.wait(30)


def beside(server: Server, folder: Path) -> Gateway:
    """Return a gateway for a server, on a free port."""
    return Gateway(server, free_ports(1), folder)
