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
from genserve.places import PROJECT

PROGRAMS = {  # name -> file in training/, and its line in the list
    "diffusion": ("train_diffusion.py", "a denoiser of real images"),
    "energy": ("train_energy.py", "an energy, by score matching or contrastive divergence"),
    "classifier": ("train_classifier.py", "a classifier, in whose features images are compared"),
    "distill": ("distill_diffusion.py", "a consistency model of a trained diffusion model"),
}


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
    runpy.run_path(str(PROJECT / "training" / PROGRAMS[name][0]), run_name="__main__")
