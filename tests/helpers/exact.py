"""Images whose denoiser or energy is known exactly, and what samplers make of them by hand."""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from genserve.sampling.langevin import Energy, slope
from genserve.sampling.noise import Noise
from genserve.sampling.samplers import Sampler, sample
from genserve.sampling.solvers import sampler_named

MEAN, STD = 0.7, 0.2
STARTS = 80 * torch.tensor([-2.0, 0.5, 3.0], dtype=torch.float64)  # x_T of three "images" of one pixel
NO_CLASS = torch.zeros(3, dtype=torch.long)


def gaussian(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """E[x_0 | x_t] for x_0 ~ N(MEAN, STD**2): exact, so every error left is the sampler's."""
    return MEAN + STD**2 / (STD**2 + sigma**2) * (x_t - MEAN)


def ode(x: Tensor, sigma: float, to: float, mean: float = MEAN) -> Tensor:
    """The probability-flow ODE of the Gaussian solved by hand: x - MEAN scales with the std of x_t."""
    return mean + math.hypot(STD, to) / math.hypot(STD, sigma) * (x - mean)


def silent(x: Tensor) -> Tensor:
    raise AssertionError("this sampler draws no noise")


def build(name: str, x: Tensor, sigmas: Tensor, y: Tensor = NO_CLASS, noise: Noise = silent) -> Sampler:
    return sampler_named(name, x, sigmas, y, noise=noise)


def two_gaussians(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """Class 0 is N(MEAN, STD**2); "no class", which is 1, is N(-0.5, STD**2)."""
    mean = torch.where(y == 0, MEAN, -0.5)
    return mean + STD**2 / (STD**2 + sigma**2) * (x_t - mean)


# ---- energies ----------------------------------------------------------------------------------------------


def gaussian_energy(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """-log density, but for a constant, of N(MEAN, STD**2) seen through noise of sigma; x is (B, C, H, W)."""
    wide = sigma.view(-1, 1, 1, 1)
    return ((x - MEAN).square() / (2 * (STD**2 + wide**2))).flatten(1).sum(1)


def drawing(seed: int = 0) -> Callable[[Tensor], Tensor]:
    """Return noise from one seeded generator."""
    rng = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)


def labels(x: Tensor) -> Tensor:
    """Return class 0 for each image."""
    return torch.zeros(len(x), dtype=torch.long)


def starts(n: int) -> Tensor:
    """Return n images of one pixel, standard normal and always the same."""
    return drawing(99)(torch.empty(n, 1, 1, 1, dtype=torch.float64))


def ended(sampler: Sampler, energy: Energy) -> Tensor:
    """Drive a sampler of slopes to its end."""
    return sample(sampler, partial(slope, energy))
