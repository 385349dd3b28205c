"""Energies that know noise levels, and the denoiser in an energy."""

import torch
from torch import Tensor, nn

from genserve.models.config import ModelConfig
from genserve.models.denoiser import Denoiser, denoiser_of
from genserve.sampling.langevin import slope
from genserve.sampling.samplers import Query
from genserve.sampling.wrappers import denoise


class ResidualEnergy(nn.Module):
    """E(x, sigma, y) = |x - R(x, sigma, y)|**2 / (2 sigma**2): how much noise, in sigmas, R finds in x.

    With R a denoiser this is nearly right before any training: if images fill few of the dimensions, R's
    Jacobian is the projection onto those few, the residual is orthogonal to them, and the gradient
    (I - J_R)^T (x - R) / sigma**2 is the residual itself over sigma**2. Training closes the difference.

    Args:
        residual: R, a network preconditioned like a denoiser.

    Source: Salimans & Ho 2021, "Should EBMs model the energy or the score?"; Du et al. 2023
    (arXiv:2302.11552), section 5.1.
    """

    def __init__(self, residual: Denoiser) -> None:
        super().__init__()
        self.residual = residual

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """Return E (B,) for x (B, C, H, W), sigma (B,) above 0, y (B,) int64; always summed in x's dtype."""
        return self.of_residual(x - self.residual(x, sigma, y), sigma)

    def of_residual(self, r: Tensor, sigma: Tensor) -> Tensor:
        """Return |r|**2 / (2 sigma**2), (B,), of what R leaves of x, (B, C, H, W)."""
        e: Tensor = (r / sigma.view(-1, 1, 1, 1)).square().flatten(1).sum(1) / 2
        return e


def residual_energy_of(config: ModelConfig) -> ResidualEnergy:
    """Return the energy of a configuration, freshly initialised."""
    return ResidualEnergy(denoiser_of(config))


class EnergyDenoiser(nn.Module):
    """The denoiser in an energy, E[x_0 | x] = x - sigma**2 grad E, for losses.

    Its gradient with respect to the parameters goes through the gradient with respect to x.

    Source: Tweedie's formula (Efron 2011, eq. 1.4), with the score -grad E.
    """

    def __init__(self, energy: nn.Module) -> None:
        super().__init__()
        self.energy = energy

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """Return E[x_0 | x] (B, C, H, W), arguments as a denoiser's."""
        gradient = slope(self.energy, x, sigma, y, create_graph=torch.is_grad_enabled())
        return denoise(Query(x, sigma, y), gradient)
