"""Measure how well a diffusion model fills what a mask leaves out: `genserve fill`."""

import sys

from genserve.commands.fill import run

if __name__ == "__main__":
    run(sys.argv[1:])
