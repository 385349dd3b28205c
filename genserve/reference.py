"""What generated images are compared with: a data set, as the classifier trained on it sees it."""

from collections.abc import Callable
from contextlib import suppress
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
    """A training set and its held-out images; where they are not below `root`, the moments of their features.

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
        with suppress(FileNotFoundError):
            self.train, self.test = data.load(config, "train"), data.load(config, "test")

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
            chunks = self.progress("neighbours")
            found = metrics.manifolds(self.features, features, real_radii=self.radii, chunks=chunks)
            distance, _ = self.nearest(x[:COPIES])
            row |= found._asdict() | {"copy_distance": distance.mean().item()}
        if y is not None:
            logits = self.classifier.logits(features.to(self.classifier.read_out.weight.device)).cpu()
            row["class_1000"] = metrics.accuracy(logits[:1000], y[:1000])
            row["class"] = metrics.accuracy(logits, y)
        return row

    def floor(self) -> dict[str, Any]:
        """Return what can be said of the held-out images where they are not there."""
        distance = metrics.frechet_between(self.stats.test, self.stats.train)
        return {"n": self.stats.test.n, "frechet_distance": distance}

    def held_out(self, n: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return about n held-out images and their classes, which no generator should be expected to beat.

        Once they are taken evenly from the whole (the first half of MNIST's is easier than the second), once
        with classes in the shares of the training set: a third of the distance of MNIST's is chance in those.
        Their order is random, so that the first of them stand for all.
        """
        if self.test is None:
            return {}
        n = min(n, len(self.test))
        picked = {"held-out images": torch.arange(n) * len(self.test) // n}
        if self.classes:
            picked["held-out, in fair shares"] = self._in_fair_shares(n)
        y, rng = self.test.y if self.classes else None, torch.Generator().manual_seed(0)
        mixed = {name: i[torch.randperm(len(i), generator=rng)] for name, i in picked.items()}
        return {name: (self.test.x[i], None if y is None else y[i]) for name, i in mixed.items()}

    def _in_fair_shares(self, n: int) -> Tensor:
        """Return which held-out images make n of classes in the training set's shares, till one runs out."""
        assert self.test is not None
        shares = self.stats.class_counts.double() / self.stats.class_counts.sum()
        there = self.test.y.bincount(minlength=len(shares))
        counts = (shares * min(n, (there / shares).min().item())).long()
        by_class = [(self.test.y == k).nonzero().flatten() for k in range(len(shares))]
        pairs = zip(by_class, counts.tolist(), strict=True)
        return torch.cat([rows[torch.arange(c) * len(rows) // max(1, c)] for rows, c in pairs])

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return how far images x (N, C, H, W) uint8 are from the nearest in training, and those images.

        The distance, (N,), is the root mean square over all pixels, in gray levels of 255.
        """
        assert self.train is not None
        distance, index = metrics.nearest(x.flatten(1).float(), self.train.x.flatten(1).float())
        return distance / x[0].numel() ** 0.5, self.train.x[index]
