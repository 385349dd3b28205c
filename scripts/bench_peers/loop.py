"""What the peers do for one request: the sampler's loop, in place, over a batch of its own.

Weights, sampler (DDIM with eta 1), steps and precision are those of genserve.
"""

import torch
from pydantic import BaseModel
from torch import Tensor

from genserve.images import grid, png, to_pixels
from genserve.sampling.samplers import Model, sample
from genserve.sampling.settings import Setting

SHAPE, CLASSES, SIGMA_MIN, SIGMA_MAX = (1, 28, 28), 10, 0.002, 40.0
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Ask(BaseModel):
    """One request."""

    num_samples: int = 16
    steps: int = 25
    seed: int = 0


def images(model: Model, n: int, steps: int, seed: int) -> Tensor:
    """Return n images, (n, C, H, W)."""
    generator = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=generator)

    setting = Setting(sampler="ddim", steps=steps, eta=1.0, sigma_min=SIGMA_MIN, sigma_max=SIGMA_MAX)
    y = torch.randint(CLASSES, (n,), generator=generator)
    return sample(setting.build(noise, torch.empty(n, *SHAPE), y), model)


def sheet(x_0: Tensor) -> bytes:
    """Return a PNG of all images."""
    return png(grid(to_pixels(x_0)))
