"""A class-conditional variational autoencoder of 256 gray levels, with a flow as its prior.

    q(z | x, y): normal;  p(x | z, y): a discretised logistic a pixel;  p(z | y): a flow of standard noise

Bounds are of p(x | y) over the 256 levels of each pixel, everything counted, in nats an image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.models.config import OnceConfig
from genserve.models.flow import Flow, log_normal
from genserve.models.gan import folded


class Encoder(nn.Module):
    """q(z | x, y): x (B, C, H, W) in [-1, 1] and the class as one-hot (B, n) -> mean and ln variance of z.

    Args:
        channels: at half and at a quarter of the resolution.
        hidden: width of the layer before the last.
    """

    def __init__(
        self, shape: Sequence[int], n_classes: int, z_dim: int, channels: Sequence[int], hidden: int
    ) -> None:
        super().__init__()
        c_in, h, w = folded(shape)
        high, low = channels
        self.conv_1 = nn.Conv2d(c_in, high, 3, padding=1)
        self.conv_2 = nn.Conv2d(high, low, 4, stride=2, padding=1)
        self.conv_3 = nn.Conv2d(low, low, 3, padding=1)
        self.conv_4 = nn.Conv2d(low, low, 3, stride=2, padding=1)
        self.hidden = nn.Linear(low * math.ceil(h / 2) * math.ceil(w / 2) + n_classes, hidden)
        self.out = nn.Linear(hidden, 2 * z_dim)

    def forward(self, x: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        h = F.pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last)  # PATCH
        h = F.silu(self.conv_2(F.silu(self.conv_1(h))))
        h = h + F.silu(self.conv_3(h))
        h = F.silu(self.conv_4(h)).flatten(1)
        h = F.silu(self.hidden(torch.cat([h, one_hot.to(h.dtype)], dim=1)))
        mean, log_variance = self.out(h).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-12, 4)


class Decoder(nn.Module):
    """p(x | z, y): z (B, z_dim) and the class as one-hot -> location and log scale of a logistic a pixel.

    Args:
        channels, hidden: as the encoder's.
    """

    def __init__(
        self, shape: Sequence[int], n_classes: int, z_dim: int, channels: Sequence[int], hidden: int
    ) -> None:
        super().__init__()
        c_out, self.height, self.width = folded(shape)
        high, low = channels
        self.hidden = nn.Linear(z_dim + n_classes, hidden)
        self.start = nn.Linear(hidden, low * self.height * self.width)
        self.conv_1 = nn.Conv2d(low, low, 3, padding=1)
        self.conv_2 = nn.Conv2d(low, low, 3, padding=1)
        self.up = nn.ConvTranspose2d(low, high, 4, stride=2, padding=1)
        self.conv_3 = nn.Conv2d(high, high, 3, padding=1)
        self.conv_4 = nn.Conv2d(high, high, 3, padding=1)
        self.out = nn.Conv2d(high, 2 * c_out, 3, padding=1)

    def forward(self, z: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        h = F.silu(self.start(F.silu(self.hidden(torch.cat([z, one_hot], dim=1)))))
        # as (B, H, W, C) in memory, the order in which convolutions are fastest
        h = h.view(len(z), self.height, self.width, -1).permute(0, 3, 1, 2)
        h = h + self.conv_2(F.silu(self.conv_1(h)))
        h = F.silu(self.up(F.silu(h)))
        h = h + self.conv_4(F.silu(self.conv_3(h)))
        location, log_scale = self.out(F.silu(h)).float().chunk(2, dim=1)
        return F.pixel_shuffle(location, 2), F.pixel_shuffle(log_scale, 2).clamp(-6, 3)  # PATCH


def log_likelihood(x: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    """Return ln p(x) of images of 256 gray levels, (B,): a logistic a pixel, cut at the levels' borders.

    The first level has all that is below it, and the last one all above, so that the 256 sum to 1. With the
    borders a above b, in scales from the location, and s the logistic function,
    s(a) - s(b) = s(a) s(-b) (1 - e^(b - a)), which loses no digits far out.

    Args:
        x: (B, C, H, W) in [-1, 1], k / 127.5 - 1 for level k;  location, log_scale: like x.

    Source: Salimans et al. 2017 (PixelCNN++, arXiv:1701.05517), eq. (2).
    """
    inverse = torch.exp(-log_scale)
    above, below = (x - location + 1 / 255) * inverse, (x - location - 1 / 255) * inverse
    width = (2 / 255) * inverse
    log_above, log_below = F.logsigmoid(above), F.logsigmoid(-below)
    inside = log_above + log_below + torch.log(-torch.expm1(-width))
    pixels = torch.where(x < -0.999, log_above, torch.where(x > 0.999, log_below, inside))
    return pixels.flatten(1).sum(1)


class VAE(nn.Module):
    """The autoencoder and its prior; y (B,) is int64 everywhere, and rows are independent.

    Args:
        shape: (C, H, W) of an image; sides are multiples of 4.
        n_classes: 0 for a model without classes, whose y is 0.
        z_dim: of the latent variable.
        channels: at half and at a quarter of the resolution.
        hidden: width of the layers next to the latent variable.
        couplings, coupling_hidden: depth of the flow, and width of the networks in it.

    Raises:
        ValueError: an image's side is not a multiple of 4, or z_dim is odd.

    Source: Kingma & Welling 2014 (arXiv:1312.6114); a flow as prior, Chen et al. 2017 (arXiv:1611.02731).
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        *,
        z_dim: int = 64,
        channels: Sequence[int] = (64, 128),
        hidden: int = 256,
        couplings: int = 8,
        coupling_hidden: int = 256,
    ) -> None:
        super().__init__()
        self.n_classes, self.z_dim = max(1, n_classes), z_dim
        self.encoder = Encoder(shape, self.n_classes, z_dim, channels, hidden)
        self.decoder = Decoder(shape, self.n_classes, z_dim, channels, hidden)
        self.prior = Flow(z_dim, self.n_classes, couplings, coupling_hidden)

    def one_hot(self, y: Tensor) -> Tensor:
        """Return classes as (B, n) of float32; one column of ones for a model without classes."""
        return F.one_hot(y, self.n_classes).float()

    def sampled(self, mean: Tensor, log_variance: Tensor, eps: Tensor) -> Tensor:
        """Return z (B, z_dim) of the posterior for standard normal eps."""
        return mean + (log_variance / 2).exp() * eps

    def divergence(self, z: Tensor, log_variance: Tensor, eps: Tensor, one_hot: Tensor) -> Tensor:
        """Return ln q(z | x, y) - ln p(z | y), (B,), whose mean over eps is the KL divergence."""
        noise, log_det = self.prior(z, one_hot)
        log_q, log_p = log_normal(eps) - log_variance.sum(1) / 2, log_normal(noise) + log_det
        difference: Tensor = log_q - log_p
        return difference

    # ---- queries: each is a function of rows --------------------------------------------------------------

    def forward(self, eps: Tensor, y: Tensor) -> Tensor:
        """Return the images x (B, C, H, W) in [-1, 1] of the prior's noise eps (B, z_dim): as `decode`."""
        return self.decode(eps, y)

    @torch.jit.export
    def decode(self, eps: Tensor, y: Tensor) -> Tensor:
        """Return the images x (B, C, H, W) in [-1, 1] of the prior's noise eps (B, z_dim).

        Shown is the location of each pixel's logistic, not a draw of it.
        """
        one_hot = self.one_hot(y)
        location, _ = self.decoder(self.prior.inverse(eps, one_hot), one_hot)
        x: Tensor = location.clamp(-1, 1)
        return x

    @torch.jit.export
    def encode(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and ln variance of q(z | x, y), and the prior's noise at that mean; each (B, z_dim).

        `decode` makes the reconstruction of x from that noise.
        """
        one_hot = self.one_hot(y)
        mean, log_variance = self.encoder(x, one_hot)
        noise, _ = self.prior(mean, one_hot)
        return mean, log_variance, noise

    @torch.jit.export
    def bound(self, x: Tensor, y: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return -ln p(x | z, y) and ln q(z | x, y) - ln p(z | y) in nats, each (B,), of one z an image.

        Their sum is at least -ln p(x | y) in the mean over standard normal eps (B, z_dim).
        """
        one_hot = self.one_hot(y)
        mean, log_variance = self.encoder(x, one_hot)
        z = self.sampled(mean, log_variance, eps)
        location, log_scale = self.decoder(z, one_hot)
        return -log_likelihood(x, location, log_scale), self.divergence(z, log_variance, eps, one_hot)


@dataclass(frozen=True, kw_only=True)
class VaeConfig(OnceConfig):
    """The configuration of an autoencoder, whose `net` has the arguments of VAE."""

    def build(self) -> VAE:
        """Return the autoencoder, freshly initialised."""
        return VAE(self.shape, len(self.classes), **self.net)
