"""A worker of small_host: the real anchors and table around an engine that only waits.

    small_worker.py ADDRESS TABLE NUMBER

Its visits do with anchors what Handler does; requests are (id, token, seconds), answers id -> status.
"""

import sys
import time
from multiprocessing.connection import Client
from pathlib import Path

from genserve.crew import Place
from genserve.serving.hosts.anchors import LET_GO, NOT_MINE, STAY_S, Anchors

SLICE_S = 0.004


def main(address: str, table: str, number: int) -> None:
    """Serve until the host closes the connection."""

    def post(token: str) -> int:
        try:
            with Client(address, "AF_UNIX") as connection:
                connection.send(("post", token))
                status: int = connection.recv()
                return status
        except (OSError, EOFError):
            return 0

    host = Client(address, "AF_UNIX")
    anchors = Anchors(Place(Path(table), number), post)
    host.send(("worker", number))
    ends: dict[str, float] = {}  # of open requests
    while True:
        jobs = host.recv()
        tokens = {key: token for key, token, _ in jobs if token}
        mine, foreign = anchors.sorted(tokens)
        replies = dict.fromkeys(foreign, NOT_MINE)
        for key, token, seconds in jobs:
            if not token:
                ends.setdefault(key, time.monotonic() + seconds)
        if ends:
            anchors.busy(len(ends))
            holds_back = anchors.holds_back(bool(mine))
            until = time.monotonic() + (STAY_S if holds_back else SLICE_S)
            while ends and time.monotonic() < until:
                time.sleep(0.001)
                ended = [key for key, at in ends.items() if at <= time.monotonic()]
                replies |= dict.fromkeys(ended, 200)
                for key in ended:
                    del ends[key]
                if ended and not holds_back:
                    break
        keep = bool(ends) or anchors.idle(bool(mine), bool(replies))
        replies |= dict.fromkeys(mine[1 if keep else 0 :], LET_GO)
        host.send(replies)


if __name__ == "__main__":
    try:
        main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    except (EOFError, OSError):  # the host is gone
        sys.exit(0)
