"""Measure how well an energy tells the unfamiliar from what it learnt: `genserve detect`."""

import sys

from genserve.commands.detect import run

if __name__ == "__main__":
    run(sys.argv[1:])
