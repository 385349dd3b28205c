"""Compare generated images with a data set, in the features of a classifier that was trained on it."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from genserve.data.pictures import DataConfig, ImageSet, load_images
from genserve.files import parsing
from genserve.measure import metrics
from genserve.measure.features import class_accuracy, features_of, read_stats
from genserve.measure.metrics import Moments
from genserve.models.classifier import ClassifierConfig
from genserve.places import located, places
from genserve.progress import Chunks, Progress
from genserve.runs.directory import classifier_config, load_classifier, trained_with

SHIPPED = Path("weights")  # the folder of classifiers and judges
COPIES = 1000  # images that are compared with their nearest training image


def quiet(_: str) -> Chunks:
    """Show nothing."""
    return iter


def classifier_for(
    shape: tuple[int | None, int, int], classes: Sequence[str], folder: Path = SHIPPED
) -> Path:
    """Return the run directory of the only classifier in a folder for such images; judges do not count.

    Args:
        shape: (C, H, W) of an image; C is None for any.
        classes: their names, () if the images have none.
        folder: parent of the `classifier-*`; searched for as `places` says.

    Raises:
        ValueError: the folder has no classifier for such images, or several.
    """
    known = _known(folder, "classifier-*", judge=False)
    fit = _fitting(known, shape, classes)
    if len(fit) != 1:
        names = [f"{directory} {model.shape}" for place in known for directory, model in place.items()]
        images = f"images {tuple(shape)}" + (f" of the classes {', '.join(classes)}" if classes else "")
        what = "several classifiers know" if fit else "no classifier knows"
        raise ValueError(
            f"{what} {images}; there are: {', '.join(names) or 'none'}. Name one with --classifier"
        )
    return fit[0]


def judge_for(
    shape: tuple[int | None, int, int], classes: Sequence[str], folder: Path = SHIPPED
) -> Path | None:
    """Return the run directory of the only judge in a folder for such images, or None; as `classifier_for`.

    Raises:
        ValueError: several judges know such images.
    """
    fit = _fitting(_known(folder, "judge-*", judge=True), shape, classes)
    if len(fit) > 1:
        names = ", ".join(map(str, fit))
        raise ValueError(f"several judges know images {tuple(shape)}: {names}. Name one with --judge")
    return fit[0] if fit else None


def _known(folder: Path, pattern: str, *, judge: bool) -> list[dict[Path, ClassifierConfig]]:
    """Return the classifiers, or the judges, of every place of a folder, by their run directories."""
    models = [
        {path.parent: classifier_config(path.parent) for path in sorted(place.glob(f"{pattern}/config.json"))}
        for place in places(folder)
    ]
    return [{path: model for path, model in place.items() if model.judge == judge} for place in models]


def _fitting(
    known: list[dict[Path, ClassifierConfig]], shape: tuple[int | None, int, int], classes: Sequence[str]
) -> list[Path]:
    """Return the run directories for such images, of the first place that has any."""
    for place in known:
        fit = [
            directory
            for directory, model in place.items()
            if shape[0] in (None, model.shape[0])
            and tuple(shape[1:]) == model.shape[1:]
            and tuple(classes) in ((), model.classes)
        ]
        if fit:
            return fit
    return []


class Space:
    """Features of one network, and those of the training images as far as they are known.

    Args:
        features: images (N, C, H, W) uint8 and a progress bar -> their features (N, D), on the CPU.
        real: the training images, (N, C, H, W) uint8; None if they are missing.
        moments: of their features; None if they are not known without the images.
    """

    def __init__(
        self,
        features: Callable[[Tensor, Chunks], Tensor],
        real: Tensor | None,
        moments: Moments | None = None,
        progress: Progress = quiet,
    ) -> None:
        self._features, self._real, self._moments, self._progress = features, real, moments, progress

    def features(self, x: Tensor) -> Tensor:
        """Return the features of images (N, C, H, W) uint8, (N, D)."""
        return self._features(x, self._progress("features"))

    @cached_property
    def real(self) -> Tensor:
        """Features of the training images, (N, D)."""
        assert self._real is not None
        return self._features(self._real, self._progress("training images, features"))

    @cached_property
    def moments(self) -> Moments:
        """Moments of the training images' features."""
        return self._moments or metrics.moments(self.real)

    @cached_property
    def radii(self) -> Tensor:
        """Squared radii of the training images' neighbourhoods, (N,)."""
        return metrics.radii(self.real, chunks=self._progress("training images, neighbourhoods"))

    @cached_property
    def kernel(self) -> float:
        """Mean kernel of the training images, a part of the kernel distance."""
        return metrics.mean_kernel(self.real, chunks=self._progress("training images, kernel"))

    def measure(self, features: Tensor) -> dict[str, float]:
        """Return all known distances of features (M, D) to those of the training images."""
        row = {}
        if self._moments or self._real is not None:
            row["frechet_distance"] = metrics.frechet_between(metrics.moments(features), self.moments)
        if self._real is not None:
            chunks = self._progress("neighbours")
            row["kernel_distance"] = metrics.kernel_distance(self.real, features, self.kernel)
            row |= metrics.manifolds(self.real, features, real_radii=self.radii, chunks=chunks)._asdict()
        return row


class Judge:
    """An independent classifier, which measures the choices of another and chooses nothing.

    Args:
        directory: its run directory.
        shape: (C, H, W) of the images to measure.

    Raises:
        FileNotFoundError, ValueError: as `load_classifier` and `read_stats`; or the run is not a judge, or
            the judge of other images.
    """

    def __init__(
        self,
        directory: Path,
        shape: tuple[int, int, int],
        device: torch.device,
        progress: Progress = quiet,
    ) -> None:
        model = classifier_config(directory)
        if not model.judge:
            raise ValueError(f"judge: {directory} is a classifier that may have chosen; give a judge-*")
        if model.shape != shape:
            raise ValueError(f"judge: {directory} knows images {model.shape}, not {shape}")
        self.classifier = load_classifier(directory).to(device)
        self.stats = read_stats(directory)
        self.space = Space(partial(features_of, self.classifier), None, self.stats.train, progress)

    def floor(self) -> dict[str, float]:
        """Return the distance of all held-out images, from their moments."""
        return {"judge_frechet_distance": metrics.frechet_between(self.stats.test, self.stats.train)}

    def measure(self, x: Tensor, y: Tensor | None = None) -> dict[str, float]:
        """Return the Frechet distance of images x (N, C, H, W) uint8 to the training images.

        With their classes y, (N,), also return the share of the images that show their class to the judge.
        """
        features = self.space.features(x)
        row = self.space.measure(features)
        if y is not None:
            row["class"] = class_accuracy(self.classifier, features, y)
        return {f"judge_{key}": value for key, value in row.items()}


class Reference:
    """A training set and its held-out images; or, if they are missing, the moments of their features.

    Args:
        directory: run directory of the classifier.
        root: folder of its data set; None for the place in its config.json.

    Raises:
        FileNotFoundError, ValueError: as `load_classifier` and `read_stats`.
    """

    def __init__(
        self, directory: Path, root: Path | None, device: torch.device, progress: Progress = quiet
    ) -> None:
        model = classifier_config(directory)
        self.shape, self.classes = model.shape, model.classes
        self.classifier = load_classifier(directory).to(device)
        self.stats = read_stats(directory)
        data = trained_with(directory, "data")
        elsewhere = {} if root is None else {"root": str(root)}
        with parsing(directory / "config.json", "the configuration of a classifier"):
            config = DataConfig(**data | elsewhere | {"download": False})
        self.name, self.root = config.name, located(config.root)
        config = replace(config, root=str(self.root))
        self.train: ImageSet | None = None
        self.test: ImageSet | None = None
        with suppress(FileNotFoundError):
            self.train, self.test = load_images(config, "train"), load_images(config, "test")
        features = partial(features_of, self.classifier)
        self.space = Space(features, self.real, self.stats.train, progress)

    @property
    def real(self) -> Tensor | None:
        """The training images, (N, C, H, W) uint8, or None if they are missing."""
        return None if self.train is None else self.train.x

    def measure(self, x: Tensor, y: Tensor | None, features: Tensor | None = None) -> dict[str, Any]:
        """Return all numbers of images: distances, and the shares of them that show their class.

        Args:
            x: (N, C, H, W) uint8.
            y: (N,), their classes, or None.
            features: `space.features(x)`, (N, D), if they are known already.

        Raises:
            ValueError: the images have another shape, or there are too few.
        """
        if tuple(x.shape[1:]) != self.shape:
            raise ValueError(f"the classifier knows images {self.shape}, not {tuple(x.shape[1:])}")
        if len(x) <= metrics.K:
            raise ValueError(f"{len(x)} images are too few: need more than {metrics.K}")
        features = self.space.features(x) if features is None else features
        row: dict[str, Any] = {"n": len(x)} | self.space.measure(features)
        if self.train is not None:
            distance, _ = self.nearest(x[:COPIES])
            row["copy_distance"] = distance.mean().item()
        if y is not None:
            row["class_1000"] = class_accuracy(self.classifier, features[:1000], y[:1000])
            row["class"] = class_accuracy(self.classifier, features, y)
        return row

    def floor(self) -> dict[str, Any]:
        """Return the numbers of all held-out images that their moments give."""
        distance = metrics.frechet_between(self.stats.test, self.stats.train)
        return {"n": self.stats.test.n, "frechet_distance": distance}

    def held_out(self, n: int) -> dict[str, tuple[Tensor, Tensor | None]]:
        """Return about n held-out images and their classes, as the floor for any generator, by name.

        The first set is taken evenly from all (the first half of MNIST's test set is easier than the second),
        the second with classes in the shares of the training set: a third of the distance of MNIST's is
        chance in those. The order is random, so that the first images stand for all.
        """
        if self.test is None:
            return {}
        n = min(n, len(self.test))
        picked = {"held-out images": torch.arange(n) * len(self.test) // n}
        if self.classes:
            picked["held-out, in fair shares"] = self._in_fair_shares(n)
        picked = {name: i for name, i in picked.items() if len(i) > metrics.K}  # fewer cannot be measured
        y, rng = self.test.y if self.classes else None, torch.Generator().manual_seed(0)
        mixed = {name: i[torch.randperm(len(i), generator=rng)] for name, i in picked.items()}
        return {name: (self.test.x[i], None if y is None else y[i]) for name, i in mixed.items()}

    def _in_fair_shares(self, n: int) -> Tensor:
        """Return the indices of at most n held-out images with classes in the training set's shares."""
        assert self.test is not None
        shares = self.stats.class_counts.double() / self.stats.class_counts.sum()
        available = self.test.y.bincount(minlength=len(shares))
        counts = (shares * min(n, (available / shares).min().item())).long()
        by_class = [(self.test.y == k).nonzero().flatten() for k in range(len(shares))]
        pairs = zip(by_class, counts.tolist(), strict=True)
        return torch.cat([rows[torch.arange(c) * len(rows) // max(1, c)] for rows, c in pairs])

    def nearest(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distances of images x (N, C, H, W) uint8 to the nearest in training, and those images.

        A distance, (N,), is the root mean square over all pixels, in gray levels of 255.
        """
        assert self.train is not None
        distance, index = metrics.nearest(x.flatten(1).float(), self.train.x.flatten(1).float())
        return distance / x[0].numel() ** 0.5, self.train.x[index]
