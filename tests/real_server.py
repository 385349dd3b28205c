"""A real TorchServe for tests, started by scripts/serve as a user would start it."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).parent.parent


def free_ports(n: int) -> int:
    """Return the first of n ports in a row that nobody listens on."""
    for first in range(18080, 28080, 10):
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

    def serve(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run scripts/serve on this server, from a shell whose PYTHONPATH names the work tree."""
        options = ["--port", str(self.port), "--home", str(self.home), "--model-store", str(self.store)]
        return subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "serve"), command, *options],
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
