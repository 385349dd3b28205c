"""What generated images are compared with: a data set, as the classifier trained on it sees it."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genserve import data, metrics, run
from genserve.classifier import classifier_config, features_of, load_classifier, read_stats
from genserve.data import DataConfig, ImageSet
from genserve.metrics import Chunks

COPIES = 1000  # images whose nearest training image is looked for

Progress = Callable[[str], Chunks]  # what is being done -> what shows how far it is


def quiet(_: str) -> Chunks:
    """Show nothing."""
    return iter


class Reference:
    """A training set and its held-out images: whole where they are below `root`, else the moments of their features.

    Args:
        directory: run directory of the classifier.
        root: where the data set that it learnt is.

    Raises:
        FileNotFoundError, ValueError: as `classifier_config` and `read_stats`.
    """

    def __init__(self, directory: Path, root: Path, device: torch.device, progress: Progress = quiet) -> None:
        model = classifier_config(directory)
        self.shape, self.classes = model.shape, model.classes
        self.classifier = load_classifier(directory).to(device)
        self.stats = read_stats(directory)
        self.progress = progress
        learnt = run.read_config(directory)["train"]["data"]
        config = DataConfig(**learnt | {"root": str(root), "download": False})
        self.name = config.name
        self.train: ImageSet | None = None
        self.test: ImageSet | None = None
        try:
            self.train, self.test = data.load(config, "train"), data.load(config, "test")
        except FileNotFoundError:
            pass

    @cached_property
    def features(self) -> Tensor:
        """Of the training images, (N, D)."""
        assert self.train is not None
        return features_of(self.classifier, self.train.x, self.progress("training images, features"))

    @cached_property
    def radii(self) -> Tensor:
        """Squared, of the training images' neighbourhoods, (N,)."""
        return metrics.radii(self.features, chunks=self.progress("training images, neighbourhoods"))

    def measure(self, x: Tensor, y: Tensor | None) -> dict[str, Any]:
        """Return every number there is for images x (N, C, H, W) uint8, asked for as classes y (N,) or none.

        Raises:
            ValueError: the images have another shape, or there are too few.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"the classifier knows images {self.shape}, not {tuple(x.shape[1:])}")
        if len(x) <= metrics.K:
            raise ValueError(f"{len(x)} images are too few: need more than {metrics.K}")
        features = features_of(self.classifier, x, self.progress("features"))
        row: dict[str, Any] = {
            "n": len(x),
            "frechet_distance": metrics.frechet_between(metrics.moments(features), self.stats.train),
        }
        if self.train is not None:
            found = metrics.manifolds(self.features, features, real_radii=self.radii, chunks=self.progress("neighbours"))
            distance, _ = self.nearest(x[:COPIES])
            row |= found._asdict() | {"copy_distance": distance.mean().item()}
        if y is not None:
            logits = self.classifier.logits(features.to(self.classifier.read_out.weight.device)).cpu()
            row["class_1000"] = metrics.accuracy(logits[:1000], y[:1000])
            row["class"] = metrics.accuracy(logits, y)
        return row

    def floor(self, n: int) -> dict[str, Any]:
        """Return the same numbers for n real images that were held out, or for all where there are fewer than n.

        They are taken evenly from the whole: the first half of MNIST's is easier than the second. Without the images it
        is the distance of all of them.
        """
        if self.test is None:
            distance = metrics.frechet_between(self.stats.test, self.stats.train)
            return {"n": self.stats.test.n, "frechet_distance": distance}
        n = min(n, len(self.test))
        picked = torch.arange(n) * len(self.test) // n
        return self.measure(self.test.x[picked], self.test.y[picked] if self.classes else None)

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far images x (N, C, H, W) uint8 are from their nearest training images, and those images.

        The distance, (N,), is the root mean square over all pixels, in gray levels of 255.
        """
        assert self.train is not None
        distance, index = metrics.nearest(x.flatten(1).float(), self.train.x.flatten(1).float())
        return distance / x[0].numel() ** 0.5, self.train.x[index]
