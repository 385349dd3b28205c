"""A process with a place in a table of workers.

    crew_member.py TABLE NUMBER

Lines on stdin say what it does: "put STATE OPEN", "others", "bell" (waits for its bell); "puts N" and
"asks N NUMBER" write N times, and print how often what was written last was not there; "lock" holds the table
for a minute, "take" takes every other place as well.
"""

import contextlib
import fcntl
import sys
import time
from pathlib import Path

from genserve.crew import SLOTS, Asked, Place, State

if __name__ == "__main__":
    place = Place(Path(sys.argv[1]), int(sys.argv[2]))
    print("ready", flush=True)
    for line in sys.stdin:
        match line.split():
            case ["put", state, n]:
                place.put(state=State[state], open=int(n))
                print("done", flush=True)
            case ["puts", n]:
                lost = 0
                for k in range(int(n)):
                    place.put(open=k)
                    lost += place.me.open != k
                print(lost, flush=True)
            case ["asks", n, number]:
                lost, duty = 0, Asked.NOTHING
                for k in range(int(n)):
                    duty = Asked(1 + k % 2)
                    place.ask([int(number)], duty)
                    time.sleep(0)  # the other one writes meanwhile
                    lost += next(m.duty for m in place.others() if m.worker == int(number)) is not duty
                print(lost, flush=True)
            case ["bell"]:
                place.bell.settimeout(5)
                print(place.bell.recv(1).decode(), flush=True)
            case ["others"]:
                print(*(f"{m.worker}:{m.state.name}:{m.open}" for m in place.others()), flush=True)
            case ["take"]:
                for slot in range(SLOTS):
                    with contextlib.suppress(OSError):
                        fcntl.lockf(place._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, slot)
                print("took", flush=True)
            case ["lock"]:
                with place.changes():
                    print("locked", flush=True)
                    time.sleep(60)
