"""A model whose images are one gray: what a service answers about is then known in closed form."""

import torch
from torch import Tensor

from genserve.runs.contract import Spec

SPEC = Spec(
    name="gray",
    family="diffusion",
    shape=(1, 4, 4),
    classes=("dark", "light"),
    sigma_min=0.01,
    sigma_max=20.0,
)
LONG = {"num_samples": 8, "steps": 900, "sampler": "ddim", "seed": 1}
SHORT = {"num_samples": 1, "steps": 2, "seed": 2, "format": "json"}


def gray(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """E[x_0 | x_t] of images that are one gray, by class."""
    mean = torch.tensor([-0.5, 0.5, 0.0])[y].view(-1, 1, 1, 1)
    return mean + 0.01 / (0.01 + sigma.view(-1, 1, 1, 1) ** 2) * (x - mean)
