"""Draw many pictures into a folder: `genserve generate`."""

import sys

from genserve.commands.generate import run

if __name__ == "__main__":
    run(sys.argv[1:])
