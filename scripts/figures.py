"""Draw pictures of the process: `genserve figures`."""

import sys

from genserve.commands.figures import run

if __name__ == "__main__":
    run(sys.argv[1:])
