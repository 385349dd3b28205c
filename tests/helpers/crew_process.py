"""A process with a place in a table of workers, which a test tells what to do; see crew_member.py."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from real_server import ROOT


class Process:
    """A worker, which is told what to write."""

    def __init__(self, table: Path, number: int) -> None:
        command = [sys.executable, str(ROOT / "tests/helpers/crew_member.py"), str(table), str(number)]
        self.number = number
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        assert self.line() == "ready"

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self, text: str) -> str:
        """Send a line, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(text + "\n")
        self._process.stdin.flush()
        return self.line()

    def kill(self) -> None:
        with self._process as process:
            process.send_signal(signal.SIGKILL)
