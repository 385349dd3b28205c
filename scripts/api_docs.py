"""Write docs/api.md: `genserve api-docs`."""

import sys

from genserve.commands.api_docs import run

if __name__ == "__main__":
    run(sys.argv[1:])
