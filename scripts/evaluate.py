"""Measure generated images against real ones: `genserve evaluate`."""

import sys

from genserve.commands.evaluate import run

if __name__ == "__main__":
    run(sys.argv[1:])
