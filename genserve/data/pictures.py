"""Read a data set into one uint8 tensor: (Fashion-)MNIST, CIFAR-10, Caltech-101, small digits, a folder."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genserve import image_files as pictures
from genserve.data.listing import split_of
from genserve.images import fitted, normalise

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ImageSet:
    """Images and their classes."""

    x: Tensor  # (N, C, H, W) uint8
    y: Tensor  # (N,) int64; all 0 without classes
    classes: tuple[str, ...]  # names, () for none

    def __len__(self) -> int:
        return len(self.x)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        c, h, w = self.x.shape[1:]
        return c, h, w


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The images that a run learns from.

    Args:
        name: mnist, fashion-mnist, cifar10, caltech101, digits (8 x 8, comes with scikit-learn) or folder.
        root: folder of the files, also for downloads; for `folder` the folder itself, with train/CLASS/*.png
            and test/CLASS/*.png, or CLASS/*.png, or *.png without classes; docs/pictures.md has the rules.
        only: name of the only class to use; the images then have no classes.
        size: side in pixels to resize to (squares are cut from the centre); None keeps the size of the data,
            which must be the same for all.
        channels: 1 gray or 3 colour; None keeps those of the data, colour if any picture is in colour.
        download: download what is missing.

    Raises:
        ValueError: an unknown name, a size below 1, or channels other than 1 and 3.
    """

    name: str = "mnist"
    root: str = "data"
    only: str | None = None
    size: int | None = None
    channels: int | None = None
    download: bool = True

    def __post_init__(self) -> None:
        if self.name not in LOADERS:
            raise ValueError(f"data.name must be one of {', '.join(LOADERS)}, got {self.name!r}")
        if self.size is not None and self.size < 1:
            raise ValueError(f"data.size must be at least 1, got {self.size}")
        if self.channels not in (None, 1, 3):
            raise ValueError(f"data.channels must be 1 or 3, got {self.channels}")


def load_images(config: DataConfig, split: str) -> ImageSet:
    """Return one split of a data set.

    Args:
        split: "train" or "test". Caltech-101 has no split of its own: every tenth image is its test set.

    Raises:
        ValueError: split is neither, the data set has no class `only`, or a picture or folder is refused.
        FileNotFoundError: the data are not below `root` and could not be downloaded.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be train or test, got {split!r}")
    images = LOADERS[config.name](config, split)
    if config.only is None:
        return images
    if config.only not in images.classes:
        known = ", ".join(images.classes) or "none"
        raise ValueError(f"data.only must be a class of {config.name}: {known}; got {config.only!r}")
    picked = images.y == images.classes.index(config.only)
    return ImageSet(images.x[picked], torch.zeros(int(picked.sum()), dtype=torch.long), ())


def set_aside(images: ImageSet, n: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Return the images less n of them, and these n, drawn at random; both in the order of the set.

    Raises:
        ValueError: nothing would be left.
    """
    if not n < len(images):
        raise ValueError(f"hold_out must be below the {len(images)} images, got {n}")
    aside = torch.zeros(len(images), dtype=torch.bool)
    aside[torch.from_numpy(np.random.default_rng([seed, n]).permutation(len(images))[:n])] = True
    rest, kept = (ImageSet(images.x[mask], images.y[mask], images.classes) for mask in (~aside, aside))
    return rest, kept


def mean_and_std(images: ImageSet) -> tuple[float, float]:
    """Return mean and standard deviation of all pixels in [-1, 1] units."""
    counts = torch.bincount(images.x.flatten(), minlength=256).double()
    values = normalise(torch.arange(256)).double()
    mean = (counts @ values) / counts.sum()
    return mean.item(), ((counts @ (values - mean) ** 2) / counts.sum()).sqrt().item()


# ---- readers -----------------------------------------------------------------------------------------------


def _torchvision(dataset: str, config: DataConfig, **arguments: Any) -> Any:
    import torchvision.datasets  # here: a server has no torchvision

    try:
        return getattr(torchvision.datasets, dataset)(config.root, download=config.download, **arguments)
    except (RuntimeError, OSError) as error:
        raise FileNotFoundError(
            f"{config.name} is not below {Path(config.root).resolve()} and could not be downloaded: "
            f"put its files there or name another place with --data.root ({type(error).__name__}: {error})"
        ) from error


def _arrays(name: str) -> Callable[[DataConfig, str], ImageSet]:
    def read(config: DataConfig, split: str) -> ImageSet:
        dataset = _torchvision(name, config, train=split == "train")
        x = torch.as_tensor(dataset.data)
        x = x.unsqueeze(1) if x.ndim == 3 else x.permute(0, 3, 1, 2)
        classes = tuple(label.split(" - ")[0] for label in dataset.classes)  # MNIST's are "7 - seven"
        return _fitted(x, torch.as_tensor(dataset.targets), classes, config)

    return read


def _digits(config: DataConfig, split: str) -> ImageSet:
    """Return the 1,797 real 8 x 8 digits of scikit-learn; the last 297 are the test set."""
    from sklearn.datasets import load_digits

    images, labels = load_digits().images, load_digits().target
    x = torch.from_numpy((images * (255 / 16)).round().astype(np.uint8)).unsqueeze(1)
    part = slice(None, 1500) if split == "train" else slice(1500, None)
    return _fitted(x[part], torch.from_numpy(labels)[part].long(), tuple("0123456789"), config)


def _caltech(config: DataConfig, split: str) -> ImageSet:
    dataset = _torchvision("Caltech101", config)
    picked = [i for i in range(len(dataset)) if (i % 10 == 9) == (split == "test")]
    base = Path(dataset.root) / "101_ObjectCategories"
    files = [base / dataset.categories[dataset.y[i]] / f"image_{dataset.index[i]:04d}.jpg" for i in picked]
    return _files(files, [dataset.y[i] for i in picked], tuple(dataset.categories), config)


def _folder(config: DataConfig, split: str) -> ImageSet:
    listing = split_of(Path(config.root), split)
    if listing.passed_over:
        log.warning("%s, %s: passed over %s", config.root, split, listing.passed_over)
    return _files(listing.files, listing.labels, listing.classes, config)


def _files(
    files: Sequence[Path], labels: list[int], classes: tuple[str, ...], config: DataConfig
) -> ImageSet:
    """Read pictures, cut out their centre squares and resize these.

    Raises:
        ValueError: as `pictures.read`; or the size is not given, and the pictures have several.
    """
    rows: list[Tensor] = []
    size, cut, resized = config.size, 0, 0
    for path in files:
        pixels = pictures.read(path, config.channels)
        h, w = pixels.shape[:2]
        side = min(h, w)
        size = size or side
        if config.size is None and side != size:
            raise ValueError(
                f"data.size is not given, and the pictures have several sizes: {files[0]} has a square of "
                f"{size} x {size} pixels, {path} one of {side} x {side}"
            )
        cut, resized = cut + (h != w), resized + (side != size)
        rows.append(torch.from_numpy(fitted(pixels, size, size)).permute(2, 0, 1))
    if cut or resized:
        log.info("%d pictures: %d cut to their centre square, %d resized", len(rows), cut, resized)
    in_colour = sum(len(row) == 3 for row in rows)
    if 0 < in_colour < len(rows):
        log.warning("%d of %d pictures are in colour: all are taken as colour", in_colour, len(rows))
        rows = [row.expand(3, -1, -1) for row in rows]
    return ImageSet(torch.stack(rows), torch.tensor(labels), classes)


def _fitted(x: Tensor, y: Tensor, classes: tuple[str, ...], config: DataConfig) -> ImageSet:
    """Convert images (N, C, H, W) uint8 to the size and channels of the configuration."""
    if config.channels == 3 and x.shape[1] == 1:
        x = x.expand(-1, 3, -1, -1)
    elif config.channels == 1 and x.shape[1] == 3:
        luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
        x = torch.cat([(part * luma).sum(1, keepdim=True).round().to(torch.uint8) for part in x.split(4096)])
    if config.size is not None and x.shape[2:] != (config.size, config.size):
        parts = (
            F.interpolate(part.float(), (config.size, config.size), mode="bilinear", antialias=True)
            for part in x.split(4096)
        )
        x = torch.cat([part.round().clamp(0, 255).to(torch.uint8) for part in parts])
    return ImageSet(x.contiguous(), y.long(), classes)


LOADERS: dict[str, Callable[[DataConfig, str], ImageSet]] = {
    "mnist": _arrays("MNIST"),
    "fashion-mnist": _arrays("FashionMNIST"),
    "cifar10": _arrays("CIFAR10"),
    "caltech101": _caltech,
    "digits": _digits,
    "folder": _folder,
}
