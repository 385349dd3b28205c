"""Measure how well an autoencoder knows images: the bound of their likelihood."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from genserve.images import normalise
from genserve.models.vae import VAE

AT_ONCE = 500  # images


class Bound(NamedTuple):
    """Means over images; their sum is at least -ln p(x | y) of the 256 levels of every pixel, on average."""

    reconstruction: float  # -ln p(x | z, y), nats an image
    kl: float  # ln q(z | x, y) - ln p(z | y), nats an image
    bits_per_dim: float  # of both: bits a pixel and channel


@torch.no_grad()
def bound_of(vae: VAE, x: Tensor, y: Tensor, rng: torch.Generator) -> Bound:
    """Return the bound of images, one z each.

    Args:
        x: (N, C, H, W) uint8, N at least 1;  y: (N,), their classes, 0 for a model without.
        rng: draws the z, on the device of the model.
    """
    nats = torch.zeros(2, dtype=torch.float64)
    for x_part, y_part in zip(x.split(AT_ONCE), y.split(AT_ONCE), strict=True):
        eps = torch.randn(len(x_part), vae.z_dim, generator=rng, device=rng.device)
        parts = vae.bound(normalise(x_part.to(rng.device)), y_part.to(rng.device), eps)
        nats += torch.stack([part.double().sum() for part in parts]).cpu()
    reconstruction, kl = (nats / len(x)).tolist()
    return Bound(reconstruction, kl, (reconstruction + kl) / math.log(2) / x[0].numel())
