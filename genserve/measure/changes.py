"""Changes of images that a person sees: what a distance answers to them says what it measures."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

SMUDGES, SMUDGE_STD, SMUDGE_HEIGHT = 3, 2.0, 24.0  # of an image; pixels; gray levels of 255
GAUSSIAN, BOX = (1, 2, 1), (1, 1, 1)
Change = Callable[[Tensor, torch.Generator], Tensor]


def noisy(x: Tensor, rng: torch.Generator, std: float) -> Tensor:
    """Return pixels with normal noise of this many gray levels."""
    return x + std * torch.randn(x.shape, generator=rng)


def blurred(x: Tensor, _: torch.Generator, weights: tuple[int, ...]) -> Tensor:
    """Return weighted means over neighbours, along rows and columns; borders are repeated."""
    line = torch.tensor(weights, dtype=x.dtype) / sum(weights)
    kernel = (line[:, None] * line).expand(x.shape[1], 1, -1, -1)
    side = len(weights) // 2
    return F.conv2d(F.pad(x, (side, side, side, side), mode="replicate"), kernel, groups=x.shape[1])


def smudged(x: Tensor, rng: torch.Generator) -> Tensor:
    """Return images with soft spots, lighter or darker, at places of their own."""
    n, _, height, width = x.shape
    place, sign = torch.rand(n, SMUDGES, 2, generator=rng), torch.rand(n, SMUDGES, generator=rng) < 0.5
    rows = (torch.arange(height) - place[:, :, :1] * height) / SMUDGE_STD
    columns = (torch.arange(width) - place[:, :, 1:] * width) / SMUDGE_STD
    spots = torch.exp(-(rows.unsqueeze(3).square() + columns.unsqueeze(2).square()) / 2)
    signed = spots * torch.where(sign, SMUDGE_HEIGHT, -SMUDGE_HEIGHT)[:, :, None, None]
    return x + signed.sum(1, keepdim=True)


def flattened(x: Tensor, _: torch.Generator, contrast: float) -> Tensor:
    """Return pixels nearer to the middle of the gray levels."""
    return 127.5 + contrast * (x - 127.5)


def moved(x: Tensor, _: torch.Generator, by: int) -> Tensor:
    """Return images moved to the right and down; the first row and column are repeated."""
    return F.pad(x, (by, 0, by, 0), mode="replicate")[:, :, : x.shape[2], : x.shape[3]]


CHANGES: dict[str, Change] = {
    "none": lambda x, _: x,
    "noise of std 5 of 255": lambda x, rng: noisy(x, rng, 5),
    "noise of std 10 of 255": lambda x, rng: noisy(x, rng, 10),
    "noise of std 25 of 255": lambda x, rng: noisy(x, rng, 25),
    "Gaussian blur, 3 x 3": lambda x, rng: blurred(x, rng, GAUSSIAN),
    "box blur, 3 x 3": lambda x, rng: blurred(x, rng, BOX),
    "three faint smudges": smudged,
    "contrast 0.7": lambda x, rng: flattened(x, rng, 0.7),
    "moved by 1 pixel": lambda x, rng: moved(x, rng, 1),
    "moved by 2 pixels": lambda x, rng: moved(x, rng, 2),
}


def changed(x: Tensor, name: str, seed: int = 0) -> Tensor:
    """Return images (N, C, H, W) uint8 with a change of CHANGES, rounded to gray levels again."""
    return CHANGES[name](x.float(), torch.Generator().manual_seed(seed)).round().clamp(0, 255).to(torch.uint8)
