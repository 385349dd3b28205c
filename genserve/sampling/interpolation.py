"""Noise between two seeds: images that turn from the picture of one seed into that of another."""

import math

import torch
from torch import Tensor

from genserve.sampling.noise import Streams


class Between:
    """Draws noise for n images, from that of image `index` of `seed` to that of image `index` of `seed_to`.

    Image k is at t = k / (n - 1). Every draw of it, the start noise and all fresh noise, is

        cos(t pi / 2) a + sin(t pi / 2) b

    of the two streams' own draws a and b. This is spherical interpolation at a right angle, the angle between
    independent draws on average. So a draw is standard normal at every t, a draw at t = 0 is a, and one at
    t = 1 is b, to the bit. If the seeds are equal, the angle is 0 and every draw is a.

    Source: Shoemake 1985, "Animating rotation with quaternion curves", section 3.3.

    Args:
        seed, seed_to, index: 0 to 2**63 - 1.
        n: number of images, at least 2.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, seed: int, seed_to: int, index: int, n: int) -> None:
        if n < 2:
            raise ValueError(f"n must be at least 2, the two ends, got {n}")
        self._n, self._same = n, seed == seed_to
        self._ends = Streams(seed, [index]), Streams(seed_to, [index])

    def __len__(self) -> int:
        return self._n

    def __call__(self, x: Tensor) -> Tensor:
        """Return noise like x, (B, ...) with B = len(self)."""
        if len(x) != self._n:
            raise ValueError(f"noise for {self._n} images cannot fill a batch of {len(x)}")
        a, b = (stream(x[:1]) for stream in self._ends)
        if self._same:
            return a.expand(x.shape).clone()
        angles = [math.pi / 2 * k / (self._n - 1) for k in range(1, self._n - 1)]
        return torch.cat([a, *(math.cos(angle) * a + math.sin(angle) * b for angle in angles), b])
