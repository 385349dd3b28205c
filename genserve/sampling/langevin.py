"""Energies: one scalar per image, low for likely images; its gradient moves images toward them.

    model      (x, sigma, y) -> E, (B,): the density of x_0 + sigma * eps is proportional to exp(-E)
    Slope      what a sampler is sent: E and its gradient with respect to x
    sampler    a generator as in genserve.sampling.samplers, but sent a Slope instead of x_0

The score is minus the gradient, and with Tweedie's formula the same gradient is a denoiser:

    score = -grad E,    E[x_0 | x] = x - sigma**2 grad E,

so every diffusion sampler runs on an energy (`wrappers.denoised`), and a denoiser's loss trains it
(`models.energy.EnergyDenoiser`).
An energy without noise levels, as contrastive divergence trains it, is evaluated at sigma = 1.

Source: LeCun et al. 2006, "A Tutorial on Energy-Based Learning"; Song & Kingma 2021 (arXiv:2101.03288).
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from genserve.sampling.noise import Noise
from genserve.sampling.samplers import Query, Sampler, level

Energy = Callable[[Tensor, Tensor, Tensor], Tensor]  # (x, sigma, y) -> (B,), arguments as in Query


class Slope(NamedTuple):
    """An energy and the direction in which it rises."""

    energy: Tensor  # (B,)
    gradient: Tensor  # (B, C, H, W), of each image's own energy


def slope(energy: Energy, x: Tensor, sigma: Tensor, y: Tensor, create_graph: bool = False) -> Slope:
    """Return the energy at x and its gradient with respect to x alone; no parameter gets a gradient.

    The sum over the batch is differentiated: its gradient with respect to an image is the gradient of that
    image's own energy, whatever the size of the batch. (The mean's would shrink with the batch.)

    Args:
        create_graph: keep the graph, to differentiate the gradient again, as training does.
    """
    with torch.enable_grad():  # the caller has switched gradients off
        x = x.detach().requires_grad_(True)
        e = energy(x, sigma, y)
        (gradient,) = torch.autograd.grad(e.sum(), x, create_graph=create_graph)
    return Slope(e if create_graph else e.detach(), gradient)


# ---- samplers ----------------------------------------------------------------------------------------------


def langevin(
    x: Tensor,
    sigma: float,
    y: Tensor,
    *,
    steps: int,
    step_size: float,
    noise_std: float | None = None,
    gradient_max: float = math.inf,
    inside: Callable[[Tensor], Tensor] = lambda x: x,
    noise: Noise,
) -> Sampler:
    """Unadjusted Langevin dynamics at one noise level; nfe = steps.

    Args:
        x: (B, C, H, W), the starts of the chains;  y: (B,).
        step_size: factor of the gradient.
        noise_std: of the fresh noise of a step; none is sqrt(2 step_size), with which the chain draws from
            exp(-E) as the step goes to 0. With less it is colder, and with 0 it descends and draws no noise.
        gradient_max: every component of the gradient is clamped to plus or minus this.
        inside: brings x back into its range after each step, like `bounded`.

    Source: Welling & Teh 2011; the two clamps are Du & Mordatch 2019 (arXiv:1903.08689).
    """
    noise_std = math.sqrt(2 * step_size) if noise_std is None else noise_std
    for _ in range(steps):
        slope = yield Query(x, level(sigma, x), y)
        x = x.sub(slope.gradient.clamp(-gradient_max, gradient_max), alpha=step_size)
        if noise_std > 0:
            x = x.add(noise(x), alpha=noise_std)
        x = inside(x)
    return x


def bounded(x: Tensor, known: Tensor, keep: Tensor | None) -> Tensor:
    """Return x with every pixel in [-1, 1] and, if there are pixels to keep, those as they are in `known`."""
    x = x.clamp(-1, 1)
    return x if keep is None else torch.where(keep, known, x)


def mala(
    x: Tensor,
    sigma: float,
    y: Tensor,
    *,
    steps: int,
    step_size: float,
    noise: Noise,
    accepted: Callable[[Tensor], None] = lambda _: None,
) -> Sampler:
    """Metropolis-adjusted Langevin: it refuses some steps to draw from exp(-E) exactly; nfe = steps + 1.

    Args:
        x, sigma, y, step_size: as in `langevin`.
        accepted: gets which chains took each step, (B,) bool.

    Source: Roberts & Tweedie 1996, "Exponential convergence of Langevin distributions", section 1.4.1.
    """
    current: Slope = yield Query(x, level(sigma, x), y)
    for _ in range(steps):
        z = noise(x)
        proposal = x - step_size * current.gradient + math.sqrt(2 * step_size) * z
        proposed: Slope = yield Query(proposal, level(sigma, x), y)
        z_back = (x - proposal + step_size * proposed.gradient) / math.sqrt(2 * step_size)
        # log of exp(-E') q(x | x') over exp(-E) q(x' | x)
        log_ratio = current.energy - proposed.energy + (_square(z) - _square(z_back)) / 2
        # log_ndtr turns a normal number into the log of a uniform one
        taken = torch.special.log_ndtr(noise(current.energy)) < log_ratio
        accepted(taken)
        x = torch.where(_wide(taken), proposal, x)
        current = Slope(
            torch.where(taken, proposed.energy, current.energy),
            torch.where(_wide(taken), proposed.gradient, current.gradient),
        )
    return x


def annealed(
    x: Tensor,
    sigmas: Tensor,
    y: Tensor,
    *,
    step_size: float,
    noise_std: float | None = None,
    steps: int = 1,
    noise: Noise,
) -> Sampler:
    """Langevin dynamics from level to level, and a last denoising; nfe = levels * steps + 1.

    Args:
        x: (B, C, H, W) at sigmas[0];  sigmas: (levels + 1,), falling to 0.
        step_size: in units of sigma**2; the steepest directions are stable below 2.
        noise_std: in units of sigma; sqrt(2 step_size) draws from exp(-E) in the limit of many small steps.
            None keeps the noise consistent: a step removes the share step_size of it (as near to that as the
            next level allows) and adds what that level lacks. Few levels are then enough.
        steps: at each level.

    Source: Song & Ermon 2019 (arXiv:1907.05600), algorithm 1; consistent noise and the last denoising are
    Jolicoeur-Martineau et al. 2021 (arXiv:2009.05475), sections 3 and 4.
    """
    sigma = 0.0
    for sigma, sigma_next in pairwise(sigmas.tolist()):
        ends = [1.0] * (steps - 1) + [sigma_next / sigma or 1.0]  # in units of sigma, after each step
        for end in ends:
            size, std = step_size, noise_std
            if std is None:
                size = min(max(step_size, 1 - end), 1 + end)  # leaves no more noise than the next level has
                std = math.sqrt(max(0.0, end**2 - (1 - size) ** 2))
            walk = langevin(
                x, sigma, y, steps=1, step_size=size * sigma**2, noise_std=std * sigma, noise=noise
            )
            x = yield from walk
    slope: Slope = yield Query(x, level(sigma, x), y)
    return x.sub(slope.gradient, alpha=sigma**2)


def _square(x: Tensor) -> Tensor:
    """Return |x|**2 of each image, (B,)."""
    return x.square().flatten(1).sum(1)


def _wide(values: Tensor) -> Tensor:
    """Return values, (B,), in a shape that broadcasts to (B, C, H, W)."""
    return values.view(-1, 1, 1, 1)
