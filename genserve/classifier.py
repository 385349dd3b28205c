"""A small image classifier, whose penultimate layer is what genserve.metrics measures distances in.

An image has the same features alone and in a crowd: GroupNorm stays inside it, and BatchNorm, once trained,
is fixed numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve import run
from genserve.data import normalise
from genserve.metrics import Chunks, Moments, moments
from genserve.unet import norm, zero

STATS_FILE = "train_features_stats.safetensors"
CHUNK = 500  # images a forward pass


NORMS: dict[str, Callable[[int], nn.Module]] = {"group": norm, "batch": nn.BatchNorm2d}


class Residual(nn.Module):
    """norm, SiLU, conv, norm, SiLU, conv; plus the input."""

    def __init__(self, channels: int, norm: Callable[[int], nn.Module]) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = norm(channels), norm(channels)
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv_2 = zero(nn.Conv2d(channels, channels, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x)))
        out: Tensor = x + self.conv_2(F.silu(self.norm_2(h)))
        return out


class Classifier(nn.Module):
    """x (B, C, H, W) in [-1, 1] -> logits (B, n_classes).

    Args:
        shape: (C, H, W) of an image.
        n_classes: at least 2.
        patch: side of the squares folded into channels before the first level, 1 for none.
        channels: width of each level, one residual block each; between levels the resolution halves.
        n_features: width of the penultimate layer.
        norm: group or batch.

    Raises:
        ValueError: fewer than two classes, an unknown norm, or the image does not divide into the levels.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        *,
        patch: int = 2,
        channels: Sequence[int] = (64, 96),
        n_features: int = 128,
        norm: str = "group",
    ) -> None:
        super().__init__()
        c_image, height, width = shape
        factor = patch * 2 ** (len(channels) - 1)
        if n_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {n_classes}")
        if height % factor or width % factor:
            raise ValueError(f"{height} x {width} pixels do not divide by patch * 2**(levels - 1) = {factor}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
        self.shape, self.n_features, self.patch = tuple(shape), n_features, patch
        layers: list[nn.Module] = []
        c = c_image * patch**2
        for level, c_level in enumerate(channels):
            layers.append(nn.Conv2d(c, c_level, 3, stride=2 if level else 1, padding=1))
            layers.append(Residual(c_level, NORMS[norm]))
            c = c_level
        self.body = nn.Sequential(*layers, NORMS[norm](c), nn.SiLU())
        self.embed = nn.Linear(c, n_features)
        self.read_out = nn.Linear(n_features, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the penultimate layer, (B, n_features)."""
        h = self.body(F.pixel_unshuffle(x, self.patch))
        return F.silu(self.embed(h.mean((2, 3))))

    def logits(self, features: Tensor) -> Tensor:
        """Return the last layer, (B, n_classes), for features (B, n_features)."""
        out: Tensor = self.read_out(features)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """What it takes to build a run's classifier again; `model` in config.json."""

    family: str  # "classifier"
    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]
    net: dict[str, Any]  # the arguments of Classifier

    def build(self) -> Classifier:
        """Return the classifier, freshly initialised."""
        return Classifier(self.shape, len(self.classes), **self.net)


def classifier_config(directory: Path) -> ClassifierConfig:
    """Return the `model` part of a classifier's config.json.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is of a format this version does not know, or of another family.
    """
    model = run.read_config(directory)["model"]
    if model["family"] != "classifier":
        raise ValueError(f"{directory} holds a model of family {model['family']!r}, not a classifier")
    return ClassifierConfig(**model | {"shape": tuple(model["shape"]), "classes": tuple(model["classes"])})


def load_classifier(directory: Path) -> Classifier:
    """Return a run's classifier, in eval mode and without gradients; raises as `classifier_config`."""
    classifier = classifier_config(directory).build()
    classifier.load_state_dict(safetensors.torch.load_file(directory / "weights.safetensors"))
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def features_of(classifier: Classifier, x: Tensor, chunks: Chunks = iter) -> Tensor:
    """Return the features of images x (N, C, H, W) uint8: (N, n_features), on the CPU."""
    device = classifier.read_out.weight.device
    starts = chunks(range(0, len(x), CHUNK))
    parts = [classifier.features(normalise(x[k : k + CHUNK].to(device))).cpu() for k in starts]
    return torch.cat(parts)


class Stats(NamedTuple):
    """What a Frechet distance and its floor need of a data set, so that its images need not be there."""

    train: Moments  # of the features of the training images
    test: Moments  # of the held-out images
    class_counts: Tensor  # (n_classes,) int64, in the training images


def write_stats(directory: Path, train: Tensor, test: Tensor, y: Tensor, n_classes: int) -> None:
    """Write the moments of training and held-out features, (N, D), and the counts of the classes y, (N,)."""
    tensors = {"class_counts": y.bincount(minlength=n_classes)}
    for name, (n, mean, covariance) in (("train", moments(train)), ("test", moments(test))):
        tensors |= {f"{name}.n": torch.tensor(n), f"{name}.mean": mean, f"{name}.covariance": covariance}
    run.write_weights(directory / STATS_FILE, tensors)


def read_stats(directory: Path) -> Stats:
    """Return what `write_stats` wrote.

    Raises:
        FileNotFoundError: nothing yet.
    """
    path = directory / STATS_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there: training/train_classifier.py writes it at its end")
    t = safetensors.torch.load_file(path)
    train, test = (Moments(int(t[f"{k}.n"]), t[f"{k}.mean"], t[f"{k}.covariance"]) for k in ("train", "test"))
    return Stats(train, test, t["class_counts"])
