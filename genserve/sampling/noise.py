"""One stream of random numbers per image, so that an image never depends on its neighbours.

Image k of seed s draws from Philox-4x64 (Salmon et al. 2011) under the 128-bit key (s, k). Distinct keys are
distinct streams by construction. A torch CPU generator would not do: it keeps 32 bits of its seed, so two of
100,000 images would be equal more often than not.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

Noise = Callable[[Tensor], Tensor]  # x (B, ...) -> standard normal of the same shape, dtype and device

SEED_MAX = 2**63 - 1


class Streams:
    """Standard normal noise for the images `indices` of `seed`; row i of a draw is from image i's own stream.

    Raises:
        ValueError: the seed or an index is outside 0 to 2**63 - 1.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        self._streams = [_stream(seed, k) for k in indices]

    def __len__(self) -> int:
        return len(self._streams)

    def __call__(self, x: Tensor) -> Tensor:
        """Return fresh noise like x, (B, ...) with B = len(self), drawn in float32 on the CPU."""
        if len(x) != len(self._streams):
            raise ValueError(f"{len(self._streams)} streams cannot fill a batch of {len(x)}")
        rows = np.empty(x.shape, np.float32)
        for k, stream in enumerate(self._streams):
            stream.standard_normal(dtype=np.float32, out=rows[k : k + 1])
        return torch.from_numpy(rows).to(x)


def _stream(seed: int, index: int) -> np.random.Generator:
    """Return the random numbers of image `index` of a seed, from their beginning."""
    for value in (seed, index):
        if not 0 <= value <= SEED_MAX:
            raise ValueError(f"seed and image indices must be in 0 to {SEED_MAX}, got {value}")
    return np.random.Generator(np.random.Philox(key=np.array([seed, index], np.uint64)))


def drawn_classes(seed: int, indices: Sequence[int], n_classes: int) -> list[int]:
    """Return a class for each image, every class as likely: with them a conditional model draws anything.

    From a far part of the image's own stream: what is drawn does not change its noise.
    """
    far = np.array([0, 0, 0, 1], np.uint64)  # 2**192 numbers behind the noise
    return [
        int(
            np.random.Generator(np.random.Philox(counter=far, key=np.array([seed, k], np.uint64))).integers(
                n_classes
            )
        )
        for k in indices
    ]


def uniform(noise: Noise, x: Tensor) -> Tensor:
    """Return numbers like x, uniform in (-1, 1), from one normal number each."""
    between: Tensor = 2 * torch.special.ndtr(noise(x)) - 1
    return between


def uniforms(seed: int, index: int) -> Iterator[float]:
    """Yield the numbers of text `index` of a seed, uniform in [0, 1): number k chooses its token k.

    They are from the stream of image `index` (`Streams`), so a text never depends on its neighbours.

    Raises:
        ValueError: at the first number, if the seed or the index is outside 0 to 2**63 - 1.
    """
    stream = _stream(seed, index)
    while True:
        yield stream.random()
