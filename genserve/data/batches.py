"""Choose the images of a batch, and change images so that they stay plausible."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes after which an image is still plausible.

    Args:
        shift: move by up to this many pixels, both ways.
        flip: mirror half of the images left to right (not for digits).
    """

    shift: int = 0
    flip: bool = False


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


def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Return each image mirrored left to right with probability 1/2; x is (B, C, H, W)."""
    coin = torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device) < 0.5
    return torch.where(coin, x.flip(-1), x)


def augmented(x: Tensor, augment: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Return each image with random changes of its own; x is (B, C, H, W)."""
    if augment.shift:
        x = shifted(x, augment.shift, generator)
    if augment.flip:
        x = flipped(x, generator)
    return x
