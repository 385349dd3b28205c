"""Trouble a real TorchServe while clients ask it, and show that nothing is lost and no picture is wrong.

genserve chaos                        three minutes of killing, scaling, rolling, restarts, a full disk
genserve chaos --minutes 1 --seed 7
genserve chaos --soak 5000            no trouble, but 5,000 requests: memory, files and threads stay flat

The server is one of its own, in a temporary folder. Most clients ask again as `genserve generate` does: they
must get every picture, to the byte. What the others were answered is the table that is printed.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from genserve.commands.crowd import Crowd, Noted, counts, pictures, settings
from genserve.commands.soak import Soak
from genserve.drawing.client import answers
from genserve.files import write_atomic
from genserve.operate.api import ManagementError, Server, local_server
from genserve.operate.rolling import roll
from genserve.operate.scaling import scale
from genserve.operate.versions import version_of
from genserve.places import PACKAGES, located

NAME = "chaos"
VERSIONS = ("1.0", "2.0")  # of the same weights: both draw the same
SETTINGS = 12  # different requests
WORKERS_MAX = 3
PAUSE_S = 4.0  # between two troubles
DISK_BYTES = 300 * 10**6  # of the home, if it can be a disk of its own
FULL_S = 4.0


@dataclass
class Site:
    """The server that is troubled."""

    folder: Path
    port: int
    disk: bool  # whether its home is a disk of its own
    version: int = 0  # index of the one that is served

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/predictions/{NAME}"

    @property
    def server(self) -> Server:
        return local_server(self.port, self.home)

    def serve(self, command: str) -> None:
        """Run `genserve serve`.

        Raises:
            SystemExit: it failed.
        """
        words = [
            sys.executable, "-m", "genserve.commands", "serve", command, "--port", str(self.port),
            "--home", str(self.home), "--model-store", str(self.folder / "store"),
        ]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"serve {command} failed: {done.stdout}{done.stderr}")


def kill_worker(site: Site, dice: random.Random) -> str:
    workers = [worker for worker in version_of(site.server, NAME).workers if worker.ready]
    if not workers:
        return "no worker to kill"
    os.kill(dice.choice(workers).pid, signal.SIGKILL)
    return f"one of {len(workers)} workers killed (-9)"


def grow_or_shrink(site: Site, dice: random.Random) -> str:
    before = len(version_of(site.server, NAME).workers)
    after = dice.choice([n for n in range(1, WORKERS_MAX + 1) if n != before])
    scale(site.server, NAME, after)
    return f"scaled from {before} to {after}"


def roll_over(site: Site, _: random.Random) -> str:
    after = 1 - site.version
    roll(site.server, NAME, site.folder / f"{VERSIONS[after]}" / f"{NAME}.mar", check_seed=1)
    before, site.version = VERSIONS[site.version], after
    return f"rolled from {before} to {VERSIONS[after]}"


def stop_and_start(site: Site, _: random.Random) -> str:
    site.serve("stop")
    site.serve("start")
    return "server stopped (drained) and started"


def fill_disk(site: Site, _: random.Random) -> str:
    filler = site.home / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(2**20))
            file.flush()
    time.sleep(FULL_S)
    filler.unlink()
    return f"disk of its home full for {FULL_S:g} s"


TROUBLES: dict[str, Callable[[Site, random.Random], str]] = {
    "kill": kill_worker,
    "scale": grow_or_shrink,
    "roll": roll_over,
    "restart": stop_and_start,
    "disk": fill_disk,
}


def command_line(argv: list[str]) -> Namespace:
    """Return what the flags ask for."""
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of trouble (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the order of the troubles (default: 0)")
    parser.add_argument(
        "--troubles", nargs="+", choices=TROUBLES, default=list(TROUBLES), help="which (default: all)"
    )
    parser.add_argument("--soak", type=int, default=0, metavar="N", help="N requests without trouble instead")
    parser.add_argument("--clients", type=int, default=8, help="that ask again (default: 8)")
    parser.add_argument("--plain-clients", type=int, default=4, help="that do not (default: 4)")
    parser.add_argument("--run", type=Path, default=Path("weights/diffusion-mnist"), help="what is served")
    parser.add_argument("--port", type=int, default=18700, help="of predictions (default: 18700)")
    parser.add_argument("--output", type=Path, help="file for the table as well")
    options = parser.parse_args(argv)
    if min(options.clients, options.plain_clients) < 1 or options.minutes <= 0 or options.soak < 0:
        parser.error("--clients and --plain-clients are at least 1, --minutes above 0, --soak at least 0")
    return options


def run(argv: list[str]) -> None:
    """Trouble a server or let it soak, and print the table.

    Raises:
        SystemExit: something was lost, a picture was wrong, or memory, files or threads grew.
    """
    options = command_line(argv)
    with home_of_its_own() as (folder, disk):
        site = Site(folder, options.port, disk)
        pack(site, located(options.run))
        try:
            site.serve("start")
            tour = settings(SETTINGS)
            expected = list(zip(tour, map(pictures, answers(site.address, tour, 1)), strict=True))
            with Crowd(site.address, expected, options.clients, options.plain_clients) as crowd:
                if options.soak:
                    lines, fault = Soak(site.home, crowd, options.soak).run()
                else:
                    lines, fault = trouble(site, crowd, options), ""
        finally:
            site.serve("stop")
    lines += summary(crowd)
    text = "\n".join(lines) + "\n"
    print(text, end="")
    if options.output:
        write_atomic(options.output, text.encode())
    if crowd.lost or crowd.wrong or fault:
        sys.exit(f"lost: {len(crowd.lost)} {crowd.lost[:3]}, wrong pictures: {crowd.wrong} {fault}")


@contextlib.contextmanager
def home_of_its_own() -> Iterator[tuple[Path, bool]]:
    """Yield a temporary folder, and whether its `home` is a small disk of its own, which can be filled."""
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    (folder / "home").mkdir()
    size = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder / "home")]
    disk = os.geteuid() == 0 and subprocess.run(size, capture_output=True, check=False).returncode == 0
    try:
        yield folder, disk
    finally:
        if disk:
            subprocess.run(["umount", "-l", str(folder / "home")], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def pack(site: Site, directory: Path) -> None:
    """Pack a run as two versions; the first one is in the store."""
    for version in VERSIONS:
        words = [
            sys.executable, "-m", "genserve.commands", "archive", "--run", str(directory), "--name", NAME,
            "--version", version, "--model-store", str(site.folder / version),
        ]  # fmt: skip
        subprocess.run(words, check=True, capture_output=True, cwd=PACKAGES)
    (site.folder / "store").mkdir()
    shutil.copy(site.folder / VERSIONS[0] / f"{NAME}.mar", site.folder / "store")


def trouble(site: Site, crowd: Crowd, options: Namespace) -> list[str]:
    """Trouble the server for as long as is asked for; return the table of what plain clients got."""
    dice = random.Random(options.seed)
    names = [name for name in options.troubles if site.disk or name != "disk"]
    events: list[tuple[str, float, float]] = []
    until = time.monotonic() + 60 * options.minutes
    order: list[str] = []
    time.sleep(PAUSE_S)
    while time.monotonic() < until or order:
        order = order or dice.sample(names, len(names))  # each of them once, before any comes again
        began = time.monotonic()
        try:
            text = TROUBLES[order.pop()](site, dice)
        except ManagementError as error:
            text = f"refused: {error}"
        print(f"{time.monotonic() - began:5.1f} s  {text}", file=sys.stderr, flush=True)
        time.sleep(PAUSE_S)
        events.append((text, began, time.monotonic()))
    return table(events, crowd.asked_once)


def table(events: list[tuple[str, float, float]], noted: list[Noted]) -> list[str]:
    """Return as Markdown what clients that do not ask again were answered, trouble by trouble."""
    rows: dict[str, list[Noted]] = defaultdict(list)
    times: dict[str, int] = defaultdict(int)
    for text, began, ended in events:
        times[text] += 1
        rows[text] += [one for one in noted if began <= one.at < ended]
    lines = ["| trouble | times | answers | longest wait |", "|---|---|---|---|"]
    lines += [
        f"| {text} | {times[text]} | {counts(rows[text])} "
        f"| {max((one.seconds for one in rows[text]), default=0):.1f} s |"
        for text in sorted(rows)
    ]
    return lines


def summary(crowd: Crowd) -> list[str]:
    """Return what all clients got, in sentences."""
    longest = max((one.seconds for one in crowd.asked_again), default=0.0)
    return [
        "",
        f"Clients that ask again: {len(crowd.asked_again)} requests, {len(crowd.lost)} lost, "
        f"longest wait {longest:.1f} s. Clients that do not: {counts(crowd.asked_once)}. "
        f"Wrong pictures: {crowd.wrong}.",
    ]
