"""Diffusion with one clock, the noise level sigma: x_t = x_0 + sigma * eps.

    model      (x_t, sigma, y) -> E[x_0 | x_t], the denoiser
    schedule   n + 1 falling sigmas, the last one 0 (genserve.sampling.schedules)
    sampler    a generator: yields a Query, is sent the model's answer, returns x_0

The network's output, the score and the classic eps are views of the same answer D:

    eps = (x_t - D) / sigma,    score = (D - x_t) / sigma**2,    dx_t / dsigma = eps  (probability-flow ODE).

Source: Karras et al. 2022 (arXiv:2206.00364). The alpha_bar of DDPM is 1 / (1 + sigma**2).
"""

import math
from collections.abc import Callable, Generator
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from genserve.sampling.noise import Noise


class Query(NamedTuple):
    """A point at which a sampler needs the model's answer."""

    x: Tensor  # (B, C, H, W), x_t at unit data scale
    sigma: Tensor  # (B,), the noise level of each image, in the data's units ([-1, 1])
    y: Tensor  # (B,) int64, the class of each image; n_classes means "no class"


Model = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x_t, sigma, y) -> E[x_0 | x_t], all as in Query
Sampler = Generator[Query, Any, Tensor]  # sent x_0, or a Slope if the model is an energy
See = Callable[[Query, Any], None]  # gets a query and the guess of x_0


@torch.no_grad()
def sample(sampler: Sampler, model: Callable[[Tensor, Tensor, Tensor], Any]) -> Tensor:
    """Drive one sampler to its end and return x_0, (B, C, H, W)."""
    query = next(sampler)
    while True:
        try:
            query = sampler.send(model(*query))
        except StopIteration as end:
            x_0: Tensor = end.value
            return x_0


# ---- samplers ----------------------------------------------------------------------------------------------
# x_t is (B, C, H, W) at sigmas[0]; sigmas (n + 1,) fall to 0; y is (B,). A step's coefficients
# are Python floats: with many small requests, arithmetic on 0-dimensional tensors is a tenth of the work.


def level(sigma: float, x: Tensor) -> Tensor:
    """Return the noise level of every image of x, (B,)."""
    return x.new_full((len(x),), sigma)


def ddim(x_t: Tensor, sigmas: Tensor, y: Tensor, *, eta: float = 0.0, noise: Noise) -> Sampler:
    """Step by DDIM at eta = 0, by DDPM at eta = 1; nfe = n. eta = 0 draws no noise.

    Source: Song et al. 2021 (arXiv:2010.02502), eqs. (12) and (16), rewritten in sigma.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_0 = yield Query(x_t, level(sigma, x_t), y)
        x_t = _lowered(x_t, x_0, sigma, sigma_next, eta, noise)
    return x_t


def _lowered(x_t: Tensor, x_0: Tensor, sigma: float, sigma_next: float, eta: float, noise: Noise) -> Tensor:
    """Return the image at sigma_next, from x_t at sigma and x_0; a share of its noise is fresh."""
    fresh = eta * sigma_next * math.sqrt(1 - (sigma_next / sigma) ** 2)  # std of the new noise
    # x_0 + sqrt(sigma_next**2 - fresh**2) * eps, where eps = (x_t - x_0) / sigma
    x_t = x_0.lerp(x_t, math.sqrt(sigma_next**2 - fresh**2) / sigma)
    return x_t.add(noise(x_t), alpha=fresh) if fresh > 0 else x_t


def ddpm(x_t: Tensor, sigmas: Tensor, y: Tensor, *, noise: Noise) -> Sampler:
    """Draw each step from the posterior q(x_s | x_t, x_0) with its own variance; nfe = n.

    Source: Ho et al. 2020 (arXiv:2006.11239), eqs. (6) and (7), the "small" variance.
    """
    return ddim(x_t, sigmas, y, eta=1.0, noise=noise)


def heun(x_t: Tensor, sigmas: Tensor, y: Tensor) -> Sampler:
    """Solve the probability-flow ODE by Heun's second-order method; nfe = 2 n - 1.

    Source: Karras et al. 2022, algorithm 1.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_0 = yield Query(x_t, level(sigma, x_t), y)
        slope = (x_t - x_0) / sigma
        x_next = x_t + (sigma_next - sigma) * slope
        if sigma_next > 0:
            x_0 = yield Query(x_next, level(sigma_next, x_t), y)
            slope = (slope + (x_next - x_0) / sigma_next) / 2
            x_next = x_t + (sigma_next - sigma) * slope
        x_t = x_next
    return x_t


def dpmpp_2m(x_t: Tensor, sigmas: Tensor, y: Tensor, *, eta: float = 0.0, noise: Noise) -> Sampler:
    """Step by DPM-Solver++(2M), second order with one evaluation per step; nfe = n.

    The last step returns the model's answer.

    It is DDIM with an x_0 extrapolated to the middle of the step. eta = 0 draws no noise, eta = 1 is the
    multistep solver of the reverse SDE.

    Source: Lu et al. 2022 (arXiv:2211.01095), algorithm 2 and, for eta = 1, appendix A, with alpha = 1 and
    lambda = -log sigma.
    """
    before: tuple[Tensor, float] | None = None  # answer and h of the previous step
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_0: Tensor = yield Query(x_t, level(sigma, x_t), y)
        if sigma_next == 0:
            return x_0
        h = math.log(sigma / sigma_next)
        ahead = x_0
        if before is not None:
            x_0_before, h_before = before
            ahead = x_0 + h / (2 * h_before) * (x_0 - x_0_before)
        x_t = _lowered(x_t, ahead, sigma, sigma_next, eta, noise)
        before = x_0, h
    return x_t


def consistency(x_t: Tensor, sigmas: Tensor, y: Tensor, *, noise: Noise) -> Sampler:
    """Take each answer as the image and add fresh noise of the next level; nfe = n. For distilled models.

    Source: Song et al. 2023 (arXiv:2303.01469), algorithm 1.
    """
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        x_t = yield Query(x_t, level(sigma, x_t), y)
        if sigma_next > 0:
            x_t = x_t.add(noise(x_t), alpha=sigma_next)
    return x_t
