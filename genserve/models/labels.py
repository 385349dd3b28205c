"""The classifier that is served: it says what a picture shows, with features and gradients.

The one that measures generators (genserve.models.classifier) has a hidden layer, for its distances.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.models.classifier import Whitening, pooled_body


class FixedScaleNorm(nn.BatchNorm2d):
    """BatchNorm whose scale stays 1 and whose statistics forget fast; only its bias is trained.

    Source: Jordan 2024 (arXiv:2404.00498), listing 4.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-12, momentum=0.4)
        self.weight.requires_grad_(False)


class Airbench(nn.Module):
    """x (B, C, H, W) in [-1, 1] -> logits (B, n_classes) and features (B, n_features), both float32.

    A whitening stem with a bias, one pooled block per level and the maximum over positions make the features.
    The logits are a linear function of them, times 1/9.

    Source: Jordan 2024, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv:2404.00498), section 3 and
    listing 4.

    Args:
        shape: (C, H, W) of an image.
        n_classes: at least 2.
        channels: width of each level; the resolution halves in each.

    Raises:
        ValueError: fewer than two classes, no levels, or an image too small for them.
    """

    def __init__(self, shape: Sequence[int], n_classes: int, channels: Sequence[int]) -> None:
        super().__init__()
        if n_classes < 2:
            raise ValueError(f"a classifier needs at least 2 classes, got {n_classes}")
        c_image, *size = shape
        if not channels or any((side - 1) >> len(channels) < 1 for side in size):
            raise ValueError(f"{size[0]} x {size[1]} pixels, less 1, do not halve {len(channels)} times")
        self.body = pooled_body(c_image, channels, FixedScaleNorm, bias=True)
        self.read_out = nn.Linear(channels[-1], n_classes, bias=False)

    @torch.jit.unused
    def learn_patches(self, x: Tensor) -> None:
        """Set the weights of the stem from images x (N, C, H, W) in [-1, 1], once, before training."""
        stem = self.body[0]
        assert isinstance(stem, Whitening)
        stem.learn(x, eps=5e-4 * x.var().item())  # as the paper's, whose pixels have variance 1

    @torch.jit.unused
    def learn_stem(self, learn: bool) -> None:
        """Let the bias of the stem learn, or keep it as it is from now on."""
        stem = self.body[0]
        assert isinstance(stem, Whitening)
        assert stem.bias is not None
        stem.bias.requires_grad_(learn)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(x.to(self.read_out.weight.dtype)).float()
        return F.linear(features, self.read_out.weight.float()).float() / 9, features

    @torch.jit.export
    def gradient(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the gradient of each picture's logit of class y (B,) with respect to x, like x.

        The sum over the batch is differentiated, so a picture's gradient does not depend on its company.
        """
        before = torch.is_grad_enabled()
        torch.set_grad_enabled(True)  # a server has them off; TorchScript knows no `with torch.enable_grad()`
        x = x.detach().requires_grad_(True)
        logits, _ = self.forward(x)
        gradient = torch.autograd.grad([logits.gather(1, y.unsqueeze(1)).sum()], [x])[0]
        torch.set_grad_enabled(before)
        assert gradient is not None
        return gradient


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """The configuration of a classifier that is served; `model` in config.json."""

    family: str  # "labels"
    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]
    channels: tuple[int, ...]  # of Airbench
    mirror: bool  # a mirrored picture shows the same

    @property
    def n_features(self) -> int:
        """Numbers that the logits are a linear function of."""
        return self.channels[-1]

    def build(self) -> Airbench:
        """Return the classifier, freshly initialised."""
        return Airbench(self.shape, len(self.classes), self.channels)
