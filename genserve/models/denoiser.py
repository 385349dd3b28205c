"""The denoiser of diffusion, its loss, and the noise levels of its training."""

import math

import torch
from torch import Tensor, nn

from genserve.models.config import ModelConfig
from genserve.models.unet import UNet
from genserve.sampling.samplers import Model


class Denoiser(nn.Module):
    """D(x, sigma, y) = mean + c_skip (x - mean) + c_out F(c_in (x - mean), ln(sigma) / 4, y).

    Inputs and targets of F then have unit variance at every noise level. Subtracting the mean of the data
    matters if it is far from 0: on MNIST it is -0.74.

    Args:
        net: F, (x (B, C, H, W), c_noise (B,), y (B,)) -> (B, C, H, W).
        mean, std: of all pixels of the data, in [-1, 1] units; std above 0.

    Raises:
        ValueError: std is not above 0.

    Source: Karras et al. 2022, eq. (7) and table 1 (EDM), with the mean made explicit.
    """

    def __init__(self, net: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        if std <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        self.net = net
        self.mean = float(mean)
        self.std = float(std)

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """Return E[x_0 | x] (B, C, H, W) for x (B, C, H, W), sigma (B,) above 0, y (B,) int64."""
        scaled, known, c_out = self.preconditioned(x, sigma)
        x_0: Tensor = known + c_out * self.net(scaled, sigma.log() / 4, y).to(x.dtype)
        return x_0

    def preconditioned(self, x: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return c_in (x - mean), mean + c_skip (x - mean), and c_out: all but F."""
        s = sigma.view(-1, 1, 1, 1)
        total = (s**2 + self.std**2).sqrt()
        centred = x - self.mean
        return centred / total, self.mean + (self.std / total) ** 2 * centred, s * self.std / total


def denoiser_of(config: ModelConfig) -> Denoiser:
    """Return the denoiser of a configuration, freshly initialised."""
    return Denoiser(UNet(config.shape, len(config.classes), **config.net), config.mean, config.std)


def denoising_loss(
    model: Model,
    x_0: Tensor,
    sigma: Tensor,
    y: Tensor,
    eps: Tensor,
    std: float,
    teacher: Model | None = None,
) -> Tensor:
    """Return the denoising error of each image, (B,), weighted so that F's error counts alike at every sigma.

    Args:
        x_0: (B, C, H, W), data in [-1, 1];  sigma, y: (B,);  eps: standard normal like x_0;
        std: of the data.
        teacher: a trained denoiser to match instead of x_0. It answers with the expectation of x_0, so the
            minimum is the same as far as the teacher is right, and the gradient has far less noise.

    Source: Karras et al. 2022, eq. (2) with the weight of table 1.
    """
    weight = (sigma**2 + std**2) / (sigma * std) ** 2
    x_t = x_0 + sigma.view(-1, 1, 1, 1) * eps
    with torch.no_grad():
        target = x_0 if teacher is None else teacher(x_t, sigma, y)
    error = model(x_t, sigma, y) - target
    return weight * error.square().flatten(1).mean(1)


def training_sigmas(u: Tensor, p_mean: float, p_std: float) -> Tensor:
    """Return noise levels, (B,), ln sigma ~ N(p_mean, p_std**2), one from each of B equal quantiles.

    Args:
        u: (B,) uniform in [0, 1). The strata are not shuffled: the order of the images is random already.

    Source: Karras et al. 2022, table 1; stratified as Kingma et al. 2021 (arXiv:2107.00630), appendix I.1.
    """
    quantile = ((torch.arange(len(u), device=u.device) + u) / len(u)).clamp(1e-6, 1 - 1e-6)
    return torch.exp(p_mean + p_std * math.sqrt(2) * torch.erfinv(2 * quantile - 1))
