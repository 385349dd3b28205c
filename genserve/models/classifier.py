"""A small image classifier; distances (genserve.measure.metrics) are measured in its penultimate layer.

An image has the same features alone and in a crowd: GroupNorm stays inside the image, and BatchNorm, once
trained, is a set of fixed numbers.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.models.unet import norm, zero

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


class Pooled(nn.Sequential):
    """conv, 2 x 2 maximum, BatchNorm, SiLU, conv, BatchNorm, SiLU; each conv starts as the identity.

    Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498), section 3.
    """

    def __init__(self, c_in: int, c_out: int, norm: Callable[[int], nn.Module] = nn.BatchNorm2d) -> None:
        convs = [nn.Conv2d(c, c_out, 3, padding=1, bias=False) for c in (c_in, c_out)]
        for conv in convs:
            nn.init.dirac_(conv.weight.data[: conv.in_channels])
        norms = [norm(c_out) for _ in convs]
        super().__init__(convs[0], nn.MaxPool2d(2), norms[0], nn.SiLU(), convs[1], norms[1], nn.SiLU())


class Whitening(nn.Conv2d):
    """Rotate and scale patches of 2 x 2 pixels, so that their values are uncorrelated and of variance 1.

    The second half of the channels is the negative of the first. `learn` sets the weights, once; they are not
    trained. A bias, if there is one, is.

    Source: Jordan 2024, section 3.1; Page 2019, "How to train your ResNet".
    """

    def __init__(self, c_image: int, bias: bool = False) -> None:
        super().__init__(c_image, 2 * 4 * c_image, 2, bias=bias)
        self.weight.requires_grad_(False)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def learn(self, x: Tensor, eps: float = 5e-4) -> None:
        """Set the weights from the patches of images x (N, C, H, W) in [-1, 1].

        Args:
            eps: added to every variance, so that directions in which patches hardly differ stay faint.
        """
        patches = F.unfold(x, 2).transpose(1, 2).flatten(0, 1).double()
        variance, axes = torch.linalg.eigh(patches.T.cov())
        filters = (axes / (variance + eps).sqrt()).T.reshape(-1, *self.weight.shape[1:])
        self.weight.copy_(torch.cat([filters, -filters]))


class Classifier(nn.Module):
    """x (B, C, H, W) in [-1, 1] -> logits (B, n_classes).

    Args:
        shape: (C, H, W) of an image.
        n_classes: at least 2.
        blocks: residual, or pooled: a whitening stem and `Pooled` blocks, slower and better for photographs.
        patch: side of the pixel squares that are folded into channels first, 1 for none.
        channels: width of each level, one block each; the resolution halves between levels, or in each block.
        n_features: width of the penultimate layer.
        norm: group or batch; pooled blocks need batch.

    Raises:
        ValueError: fewer than two classes, unknown blocks or norm, or an image too small for the levels.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        *,
        blocks: str = "residual",
        patch: int = 2,
        channels: Sequence[int] = (64, 96),
        n_features: int = 128,
        norm: str = "group",
    ) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {n_classes}")
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {', '.join(NORMS)}, got {norm!r}")
        if blocks not in ("residual", "pooled"):
            raise ValueError(f"blocks must be residual or pooled, got {blocks!r}")
        if blocks == "pooled" and norm != "batch":
            raise ValueError(f"pooled blocks need norm batch, got {norm!r}")
        c_image, *size = shape
        halvings = len(channels) - (blocks == "residual")
        if any(side % patch or side < patch * 2**halvings for side in size):
            raise ValueError(
                f"{size[0]} x {size[1]} pixels do not fold by {patch} and halve {halvings} times"
            )
        self.shape, self.n_features, self.patch = tuple(shape), n_features, patch
        if blocks == "pooled":
            self.body = pooled_body(c_image * patch**2, channels)
        else:
            self.body = residual_body(c_image * patch**2, channels, NORMS[norm])
        c = channels[-1]
        self.embed = nn.Linear(c, n_features)
        self.read_out = nn.Linear(n_features, n_classes)

    def features(self, x: Tensor) -> Tensor:
        """Return the penultimate layer, (B, n_features)."""
        return F.silu(self.embed(self.body(F.pixel_unshuffle(x, self.patch))))

    def logits(self, features: Tensor) -> Tensor:
        """Return the logits, (B, n_classes), of features (B, n_features)."""
        out: Tensor = self.read_out(features)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))


def residual_body(c: int, channels: Sequence[int], norm: Callable[[int], nn.Module]) -> nn.Sequential:
    """Return one residual block per level; they take c channels and end in the mean over positions."""
    layers: list[nn.Module] = []
    for level, c_level in enumerate(channels):
        layers.append(nn.Conv2d(c, c_level, 3, stride=2 if level else 1, padding=1))
        layers.append(Residual(c_level, norm))
        c = c_level
    return nn.Sequential(*layers, norm(c), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def pooled_body(
    c: int, channels: Sequence[int], norm: Callable[[int], nn.Module] = nn.BatchNorm2d, bias: bool = False
) -> nn.Sequential:
    """Return a whitening stem and one pooled block per level; they end in the maximum over positions."""
    stem = Whitening(c, bias)
    widths = [stem.out_channels, *channels]
    blocks = [Pooled(*pair, norm) for pair in itertools.pairwise(widths)]
    return nn.Sequential(stem, nn.SiLU(), *blocks, nn.AdaptiveMaxPool2d(1), nn.Flatten())


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """The configuration of a classifier; `model` in config.json."""

    family: str  # "classifier"
    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]
    net: dict[str, Any]  # the arguments of Classifier
    judge: bool = False  # it only measures; no steps, levels or checkpoints are chosen by it

    def build(self) -> Classifier:
        """Return the classifier, freshly initialised."""
        return Classifier(self.shape, len(self.classes), **self.net)
