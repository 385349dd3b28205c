"""Choose the images of a batch, and change images so that they stay plausible."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes after which an image is still plausible.

    Args:
        shift: move by up to this many pixels, both ways.
        flip: mirror half of the images left to right (not for digits).
        reflect: what a move leaves empty is the image mirrored at its border, and not the border repeated.
        cutout: side of a square, anywhere inside each image, that is set to 0 (middle gray).
    """

    shift: int = 0
    flip: bool = False
    reflect: bool = False
    cutout: int = 0


@dataclass(frozen=True, kw_only=True)
class WarpConfig:
    """Smooth changes that keep the class of an image; they blur it a little.

    Args:
        degrees: turn by up to this angle.
        scale: enlarge or shrink by up to this share.
        shift: move by up to this many pixels.
    """

    degrees: float = 0.0
    scale: float = 0.0
    shift: float = 0.0


@lru_cache(maxsize=2)
def _permutation(n: int, seed: int, epoch: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(n))


def batch_indices(n: int, batch_size: int, batches_per_epoch: int, seed: int, step: int) -> Tensor:
    """Return the indices of batch `step` among n images, (batch_size,) int64.

    Each epoch is a new permutation. The batch is a function of the arguments alone.

    Raises:
        ValueError: an epoch needs more than n images.
    """
    if batch_size * batches_per_epoch > n:
        raise ValueError(f"{batches_per_epoch} batches of {batch_size} are more than {n} images")
    epoch, k = divmod(step, batches_per_epoch)
    return _permutation(n, seed, epoch)[k * batch_size : (k + 1) * batch_size]


def shifted(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Return each image moved by up to `pixels` both ways, with its border repeated; x is (B, C, H, W)."""
    b, _, h, w = x.shape
    move = torch.randint(-pixels, pixels + 1, (2, b, 1), generator=generator, device=x.device)
    rows = (torch.arange(h, device=x.device) + move[0]).clamp(0, h - 1)
    cols = (torch.arange(w, device=x.device) + move[1]).clamp(0, w - 1)
    at = torch.arange(b, device=x.device)
    return x.permute(0, 2, 3, 1)[at[:, None, None], rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)


def shifted_in_mirrors(x: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Return each image moved as by `shifted`, with what lies beyond its border mirrored from inside."""
    h, w = x.shape[2:]
    moved = shifted(F.pad(x, (pixels,) * 4, "reflect"), pixels, generator)
    return moved[:, :, pixels : pixels + h, pixels : pixels + w]


def flipped_in_turn(x: Tensor, first: Tensor, epoch: int) -> Tensor:
    """Return each image mirrored left to right in every other epoch; x is (B, C, H, W).

    Two epochs show every image both ways, which drawing a coin per image and epoch does not.

    Source: Jordan 2024 (arXiv:2404.00498), section 3.6, "alternating flip".

    Args:
        first: (B,) bool, whether an image is mirrored in epoch 0.
    """
    return torch.where((first ^ bool(epoch % 2)).view(-1, 1, 1, 1), x.flip(-1), x)


def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image mirrored left to right with probability 1/2; x is (B, C, H, W)."""
    coin = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(coin, x.flip(-1), x)


def cut_out(x: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Return each image with a square set to 0 that lies anywhere inside it; x is (B, C, H, W).

    Source: DeVries & Taylor 2017 (arXiv:1708.04552), section 3, with the square never beyond the border.

    Raises:
        ValueError: the square is larger than the images.
    """
    b, _, *size = x.shape
    if not 0 <= side <= min(size):
        raise ValueError(f"cutout must be in 0 to {min(size)}, the side of the images, got {side}")
    lines = []
    for length in size:
        first = torch.randint(0, length - side + 1, (b, 1), generator=generator, device=x.device)
        at = torch.arange(length, device=x.device)
        lines.append((at >= first) & (at < first + side))
    rows, columns = lines
    return x.masked_fill((rows[:, :, None] & columns[:, None, :]).unsqueeze(1), 0.0)


def augmented(x: Tensor, augment: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return each image with random changes of its own; x is (B, C, H, W)."""
    if augment.shift:
        x = (shifted_in_mirrors if augment.reflect else shifted)(x, augment.shift, generator)
    if augment.flip:
        x = flipped(x, generator)
    if augment.cutout:
        x = cut_out(x, augment.cutout, generator)
    return x


def warped(x: Tensor, warp: WarpConfig, generator: torch.Generator) -> Tensor:
    """Return each image turned, scaled and moved by its own amounts, border repeated; x is (B, C, H, W)."""
    angle, scale, right, down = torch.empty(4, len(x), device=x.device).uniform_(-1, 1, generator=generator)
    angle, scale = angle * math.radians(warp.degrees), 1 + warp.scale * scale
    cos, sin = angle.cos() / scale, angle.sin() / scale
    move = 2 * warp.shift * torch.stack([right / x.shape[3], down / x.shape[2]], dim=1)
    theta = torch.cat([torch.stack([cos, -sin, sin, cos], dim=1).view(-1, 2, 2), move.unsqueeze(-1)], dim=2)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)
