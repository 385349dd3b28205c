"""Measure what the features that distances are taken in see: blur, noise, smudges in held-out images.

    genserve changes --judge weights/judge-mnist
    genserve changes --judge weights/judge-cifar10 --data data/cifar10-jpeg

Each row is a change of the held-out images, and their Frechet distance to all training images, in the
features of the judge and in those of the classifier, and each as a multiple of the distance without a change.
What a person sees and a distance does not, the distance cannot be asked about.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from genserve.cli import config_of, plain_errors
from genserve.measure import metrics
from genserve.measure.changes import CHANGES, changed
from genserve.measure.reference import Judge, Reference, classifier_for
from genserve.places import locate
from genserve.runs.directory import classifier_config


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What to measure.

    Args:
        judge: run directory of a judge.
        classifier: of the classifier that chooses; if not given, the one for the judge's images.
        data: folder of the data set; if not given, the one that the classifier was trained from.
        n: held-out images, with classes as often as in training; a few less if a class has too few.
        threads: CPU threads; 0 is torch's own choice.
    """

    judge: Path = Path("weights/judge-mnist")
    classifier: Path | None = None
    data: Path | None = None
    n: int = 10_000
    threads: int = 0

    def __post_init__(self) -> None:
        if self.n <= metrics.K:
            raise ValueError(f"n must be above {metrics.K}, got {self.n}")
        locate(self, "judge", "classifier", "data")


def main(config: Changes) -> None:
    """Measure and print the table.

    Raises:
        FileNotFoundError, ValueError: as `Reference` and `Judge`; or the held-out images are missing.
    """
    if config.threads:
        torch.set_num_threads(config.threads)

    def bar(title: str) -> Any:
        return partial(tqdm, desc=title, leave=False, dynamic_ncols=True)

    device, known = torch.device("cpu"), classifier_config(config.judge)
    reference = Reference(
        config.classifier or classifier_for(known.shape, known.classes), config.data, device, bar
    )
    judge = Judge(config.judge, reference.shape, device, bar)
    if reference.test is None:
        raise FileNotFoundError(
            f"{reference.name} is not below {reference.root}: name its folder with --data"
        )
    *_, (x, _) = reference.held_out(config.n).values()
    print("| change | FD judge | x | FD | x |\n|---|---:|---:|---:|---:|")
    first: list[float] = []
    for name in CHANGES:
        images = changed(x, name)
        distances = [
            metrics.frechet_between(metrics.moments(space.features(images)), space.moments)
            for space in (judge.space, reference.space)
        ]
        first = first or distances
        cells = (f"{d:.3f} | {d / f:.1f}" for d, f in zip(distances, first, strict=True))
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def command_line(argv: list[str]) -> Changes:
    """Return what the flags ask for; dashes and underscores are alike."""
    return config_of(Changes, __doc__, argv)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
