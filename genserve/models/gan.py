"""A class-conditional generator, which draws an image in one evaluation, and the critic that it learns from.

All that is done at full resolution is a change of shape: four pixels leave the last convolution as four
channels of one place at half the resolution, which is the largest single saving on a CPU.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.models.config import OnceConfig

PATCH = 2  # side of the pixel squares that are channels of one place


def folded(shape: Sequence[int]) -> tuple[int, int, int]:
    """Return channels, height and width of images (C, H, W) after folding and one halving.

    Raises:
        ValueError: a side is not a multiple of 4.
    """
    c, h, w = shape
    if h % (2 * PATCH) or w % (2 * PATCH):
        raise ValueError(f"height and width must be multiples of {2 * PATCH}, got {h} x {w}")
    return c * PATCH**2, h // (2 * PATCH), w // (2 * PATCH)


class ConditionalNorm(nn.Module):
    """BatchNorm, scaled by 1 + a and moved by b, which are linear in an embedding; it starts as BatchNorm.

    Source: Dumoulin et al. 2017 (arXiv:1610.07629), eq. (5); with z in the embedding, Brock et al. 2019
    (arXiv:1809.11096), appendix B.
    """

    def __init__(self, channels: int, c_emb: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale_shift = nn.Linear(c_emb, 2 * channels)
        nn.init.zeros_(self.scale_shift.weight)
        nn.init.zeros_(self.scale_shift.bias)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        a, b = self.scale_shift(h).unsqueeze(-1).unsqueeze(-1).chunk(2, dim=1)
        out: Tensor = self.norm(x) * (1 + a) + b
        return out


class Generator(nn.Module):
    """G(z, y): z (B, z_dim) standard normal and y (B,) int64 -> x (B, C, H, W) in [-1, 1].

    A linear layer to a quarter of the resolution, a residual convolution, a transposed one to half of it,
    another residual one, and the convolution whose channels are pixels. z and the class also scale and move
    every norm. In evaluation mode BatchNorm is a set of fixed numbers, so rows are independent.

    Args:
        shape: (C, H, W) of an image; sides are multiples of 4.
        n_classes: 0 for a model without classes, whose y is 0.
        z_dim: of the noise, and of the embedding of a class.
        channels: at a quarter and at half of the resolution.

    Raises:
        ValueError: an image's side is not a multiple of 4.
    """

    def __init__(
        self, shape: Sequence[int], n_classes: int, *, z_dim: int = 64, channels: Sequence[int] = (128, 64)
    ) -> None:
        super().__init__()
        c_out, self.height, self.width = folded(shape)
        self.z_dim = z_dim
        low, high = channels
        c_emb = 2 * z_dim
        self.embed = nn.Embedding(max(1, n_classes), z_dim)
        self.start = nn.Linear(c_emb, low * self.height * self.width)
        self.norm_1, self.norm_2 = ConditionalNorm(low, c_emb), ConditionalNorm(low, c_emb)
        self.conv_1 = nn.Conv2d(low, low, 3, padding=1, bias=False)
        self.up = nn.ConvTranspose2d(low, high, 4, stride=2, padding=1, bias=False)
        self.norm_3, self.norm_4 = ConditionalNorm(high, c_emb), ConditionalNorm(high, c_emb)
        self.conv_2 = nn.Conv2d(high, high, 3, padding=1, bias=False)
        self.out = nn.Conv2d(high, c_out, 3, padding=1)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        h = torch.cat([z, self.embed(y)], dim=1)
        # as (B, H, W, C) in memory, the order in which convolutions are fastest
        x = self.start(h).view(len(z), self.height, self.width, -1).permute(0, 3, 1, 2)
        x = x + self.conv_1(F.relu(self.norm_1(x, h)))
        x = self.up(F.relu(self.norm_2(x, h)))
        x = x + self.conv_2(F.relu(self.norm_3(x, h)))
        x = self.out(F.relu(self.norm_4(x, h)))
        return torch.tanh(F.pixel_shuffle(x, 2))  # PATCH


class Discriminator(nn.Module):
    """D(x, y): images x (B, C, H, W) in [-1, 1] and y (B,) int64 -> logits (B,), above 0 for real.

    Args:
        shape, n_classes: as the generator's.
        channels: at half of the resolution, and below.
        hidden: width of the layer before the last.
        group: neighbours in the batch whose spread it sees; B is a multiple of it.

    Raises:
        ValueError: an image's side is not a multiple of 4.

    Source: the class enters by projection (Miyato & Koyama 2018, arXiv:1802.05637, eq. 4); the spread of a
    group of images is one more feature (Karras et al. 2018, arXiv:1710.10196, section 3).
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int,
        *,
        channels: Sequence[int] = (64, 128),
        hidden: int = 256,
        group: int = 16,
    ) -> None:
        super().__init__()
        c_in, h, w = folded(shape)
        high, low = channels
        self.group = group
        self.conv_1 = nn.Conv2d(c_in, high, 3, padding=1)
        self.conv_2 = nn.Conv2d(high, low, 4, stride=2, padding=1)
        self.conv_3 = nn.Conv2d(low, low, 3, padding=1)
        self.conv_4 = nn.Conv2d(low, low, 3, stride=2, padding=1)
        self.hidden = nn.Linear(low * math.ceil(h / 2) * math.ceil(w / 2) + 1, hidden)
        self.embed = nn.Embedding(max(1, n_classes), hidden)
        self.out = nn.Linear(hidden, 1)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = F.pixel_unshuffle(x, PATCH).contiguous(memory_format=torch.channels_last)
        for conv in (self.conv_1, self.conv_2, self.conv_3, self.conv_4):
            h = F.leaky_relu(conv(h), 0.2)
        h = h.flatten(1)
        h = torch.cat([h, spread(h, self.group)], dim=1)
        h = F.leaky_relu(self.hidden(h), 0.2)
        logits: Tensor = self.out(h).squeeze(1) + (self.embed(y) * h).sum(1) / h.shape[1] ** 0.5
        return logits


def spread(h: Tensor, group: int) -> Tensor:
    """Return the mean standard deviation of features h (B, F) in each group of neighbours, (B, 1).

    Raises:
        RuntimeError: B is no multiple of the group.
    """
    groups = h.float().view(-1, group, h.shape[1])
    std = (groups.var(1, unbiased=False) + 1e-8).sqrt().mean(1)
    return std.repeat_interleave(group).unsqueeze(1).to(h.dtype)


def r1_penalty(discriminator: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> Tensor:
    """Return the squared length of D's gradient at each real image, (B,), itself differentiable.

    Source: Mescheder et al. 2018 (arXiv:1801.04406), eq. (9) without gamma / 2.
    """
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(discriminator(x, y).sum(), x, create_graph=True)
    return gradient.square().flatten(1).sum(1)


@torch.no_grad()
def settle(generator: Generator, n_classes: int, rng: torch.Generator, batches: int, size: int) -> None:
    """Measure BatchNorm's means and variances again: those of other weights do not suit averaged ones.

    Args:
        n_classes: 0 for a model without classes.
        batches, size: the statistics are means over this many batches of this size, classes in equal shares.
    """
    norms = [m for m in generator.modules() if isinstance(m, nn.BatchNorm2d)]
    momenta = [m.momentum for m in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean
    device = rng.device
    generator.train()
    for _ in range(batches):
        z = torch.randn(size, generator.z_dim, generator=rng, device=device)
        generator(z, torch.arange(size, device=device) % max(1, n_classes))
    generator.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


@dataclass(frozen=True, kw_only=True)
class GanConfig(OnceConfig):
    """The configuration of a generator, whose `net` has the arguments of Generator."""

    def build(self) -> Generator:
        """Return the generator, freshly initialised."""
        return Generator(self.shape, len(self.classes), **self.net)
