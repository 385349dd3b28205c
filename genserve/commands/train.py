"""Train a model: the programs of training/, in a checkout and in an installed genserve alike.

    genserve train diffusion --config training/configs/diffusion-digits.yaml
    genserve train distill --teacher runs/diffusion-mnist --data.name mnist
    genserve train PROGRAM --help
    torchrun --nproc-per-node 2 -m -- genserve train diffusion --config ...

A configuration is read below the working directory; if nothing is there, from those that genserve ships.
"""

import runpy
import sys

from genserve.commands.__main__ import unknown
from genserve.learning.programs import PROGRAMS, path_of


def run(argv: list[str]) -> None:
    """Run the program that the first word names, as its own process would be.

    Raises:
        SystemExit: there is no such program.
    """
    if not argv or argv[0] in ("-h", "--help"):
        lines = [f"    {name:12} {line}" for name, (_, line) in PROGRAMS.items()]
        print("\n".join(["usage: genserve train PROGRAM ...", "", __doc__ or "", *lines]))
        return
    name, *rest = argv
    if name not in PROGRAMS:
        sys.exit(unknown("training program", name, list(PROGRAMS), "genserve train --help"))
    sys.argv = [f"genserve train {name}", *rest]
    runpy.run_path(str(path_of(name)), run_name="__main__")
