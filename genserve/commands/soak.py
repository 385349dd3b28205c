"""Measure what a server's processes hold while requests go through it."""

import contextlib
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from genserve.commands.crowd import Crowd

WARM_UP = 0.2  # share of the requests after which caches are full and threads are there
LOOKS = (WARM_UP, 0.4, 0.6, 0.8, 1.0)
GROWTH_MAX = 40  # MB of Java's memory, or the workers', over all looks: Java's heap breathes below its limit
MORE_MAX = 8  # files, threads: some of a pool come late


@dataclass(frozen=True)
class Held:
    """What processes of one kind hold, summed over them."""

    memory: float  # MB, resident
    files: int
    threads: int


class Soak:
    """Let requests go through a server.

    Args:
        home: of the server.
        crowd: its clients.
        n: requests.
    """

    def __init__(self, home: Path, crowd: Crowd, n: int) -> None:
        self._home, self._crowd, self._n = home, crowd, n

    def run(self) -> tuple[list[str], str]:
        """Wait until all requests are answered; return the table as Markdown, and what grew, in words."""
        looks: list[tuple[int, dict[str, Held]]] = []
        for share in LOOKS:
            while (done := self._answered()) < share * self._n and not self._crowd.lost:
                time.sleep(0.2)
            looks.append((done, self._held()))
        lines = ["| answered | process | memory | files | threads |", "|---|---|---|---|---|"]
        lines += [
            f"| {done} | {kind} | {held.memory:.0f} MB | {held.files} | {held.threads} |"
            for done, kinds in looks
            for kind, held in kinds.items()
        ]
        first, last = looks[0][1], looks[-1][1]
        grown = [
            kind
            for kind in first
            if last[kind].memory > first[kind].memory + GROWTH_MAX
            or last[kind].files > first[kind].files + MORE_MAX
            or last[kind].threads > first[kind].threads + MORE_MAX
        ]
        return lines, f"grown: {', '.join(grown)}" if grown else ""

    def _answered(self) -> int:
        return len(self._crowd.asked_again) + len(self._crowd.asked_once)

    def _held(self) -> dict[str, Held]:
        """Return what Java and the workers hold."""
        kinds: dict[str, list[psutil.Process]] = {"Java": [], "worker": []}
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("LOG_LOCATION") == str(self._home / "logs"):
                    words = process.cmdline()
                    if process.name() == "java":
                        kinds["Java"].append(process)
                    elif any("model_service_worker" in word for word in words):
                        kinds["worker"].append(process)
        return {
            kind: Held(
                sum(process.memory_info().rss for process in processes) / 1e6,
                sum(process.num_fds() for process in processes),
                sum(process.num_threads() for process in processes),
            )
            for kind, processes in kinds.items()
        }
