"""Compare what a Langevin step costs with a forward pass: `genserve bench-step`."""

import sys

from genserve.commands.bench_step import run

if __name__ == "__main__":
    run(sys.argv[1:])
