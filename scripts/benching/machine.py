"""Say how quick this machine is at the moment: how long fixed work takes on each of its cores.

    echo | python machine.py

First prints what the machine is, then a line for each line that it reads; all are JSON. The answer to a line
has two numbers per core: the seconds until the work was done, and the seconds of the processor that went into
it. All cores work at once, each bound to a process of its own, so that a neighbour on any of them is seen.
"""

import json
import os
import signal
import sys
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection

import torch

from genserve.precision import precision_for

# together 0.43 seconds of a core of an Intel Xeon with AMX
SUMS = 4_000_000  # in pure Python, which waits for the core's clock
PRODUCTS = 1600  # of matrices of 256 x 256 in float32, which share caches and vector units with neighbours


def work(core: int, pipe: Connection) -> None:
    """Do the work whenever the pipe says so, and send how long it took."""
    os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    matrix, total = torch.rand(256, 256), 0
    while pipe.recv():
        clock, processor = time.perf_counter(), time.process_time()
        for k in range(SUMS):
            total += k * k
        for _ in range(PRODUCTS):
            matrix @ matrix
        pipe.send((time.perf_counter() - clock, time.process_time() - processor))


def main() -> None:
    """Answer every line of the input."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who asks gets it as well, and ends the input
    context = get_context("fork")  # torch is imported once, and has started no thread yet
    cores = sorted(os.sched_getaffinity(0))
    pipes = []
    for core in cores:
        ours, theirs = context.Pipe()
        context.Process(target=work, args=(core, theirs), daemon=True).start()
        pipes.append(ours)
    machine = {
        "cores": len(cores),
        "precision": precision_for(torch.device("cpu")),
        "torch": torch.__version__,
    }
    print(json.dumps(machine), flush=True)
    for _ in sys.stdin:
        for pipe in pipes:
            pipe.send(True)
        print(json.dumps([pipe.recv() for pipe in pipes]), flush=True)


if __name__ == "__main__":
    main()
