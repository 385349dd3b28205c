"""model.json of a model that draws a picture from noise in one evaluation: a GAN's generator, a VAE."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genserve.runs.contract import Contract, Device


class Latent(NamedTuple):
    """Noise to draw from; the answer is x (B, C, H, W) in [-1, 1]."""

    z: Tensor  # (B, z_dim), standard normal
    y: Tensor  # (B,) int64, the class; 0 of a model without classes


class Encoded(NamedTuple):
    """A picture to encode; the answer is mean and ln variance of q(z | x, y), and the prior's noise there."""

    x: Tensor  # (B, C, H, W) in [-1, 1]
    y: Tensor  # as in Latent


class Bounded(NamedTuple):
    """A picture whose likelihood to bound; the answer is reconstruction and KL in nats, each (B,)."""

    x: Tensor  # (B, C, H, W) in [-1, 1]
    y: Tensor  # as in Latent
    eps: Tensor  # (B, z_dim), standard normal: which z of the posterior is taken


@dataclass(frozen=True, kw_only=True)
class LatentSpec(Contract):
    """The contract of such a model."""

    shape: tuple[int, int, int]  # (C, H, W)
    classes: tuple[str, ...]  # () for none
    z_dim: int

    def examples(self, n: int, device: Device) -> list[Any]:
        return [Latent(torch.zeros(n, self.z_dim, device=device), _no_class(n, device))]


@dataclass(frozen=True, kw_only=True)
class GanSpec(LatentSpec):
    """The contract of a generator; `truncation` is the default of a request."""

    truncation: float | None = None


@dataclass(frozen=True, kw_only=True)
class VaeSpec(LatentSpec):
    """The contract of an autoencoder; `temperature` is the default of a request."""

    temperature: float = 1.0

    def examples(self, n: int, device: Device) -> list[Any]:
        x, y = torch.zeros(n, *self.shape, device=device), _no_class(n, device)
        eps = torch.zeros(n, self.z_dim, device=device)
        return [Latent(eps, y), Encoded(x, y), Bounded(x, y, eps)]


def _no_class(n: int, device: Device) -> Tensor:
    return torch.zeros(n, dtype=torch.long, device=device)
