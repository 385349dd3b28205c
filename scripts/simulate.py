"""Simulate servers behind a proxy, with measured times: `genserve simulate`."""

import sys

from genserve.commands.simulate import run

if __name__ == "__main__":
    run(sys.argv[1:])
