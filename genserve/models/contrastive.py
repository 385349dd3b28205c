"""Contrastive divergence: lower the energy of data, raise that of the model's own drawings.

    loss = mean E(data) - mean E(negatives) + alpha * mean(E(data)**2 + E(negatives)**2)

The negatives are ends of short Langevin chains. Persistent chains continue from where they stopped, in a
replay buffer; a share of them starts again from noise each time, and with a share of 1 all are short-run
chains.

Source: Hinton 2002; Tieleman 2008; Du & Mordatch 2019 (arXiv:1903.08689) for the buffer and the regulariser.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.models.config import ModelConfig
from genserve.sampling.langevin import Energy, langevin, slope
from genserve.sampling.noise import Noise
from genserve.sampling.samplers import sample


@dataclass(frozen=True, kw_only=True)
class ChainConfig:
    """The chains of contrastive divergence.

    Args:
        steps: of a chain per training step.
        step_size: factor of the gradient.
        noise_std: of the noise of a step.
        gradient_max: every component of the gradient is clamped to this.
        buffer: number of persistent chains; 0 for short-run chains, which all start from noise.
        fresh: share of the chains that start again from noise, 0 to 1.
        final_steps: steps of the chains that draw a sample grid or a server's pictures.
    """

    steps: int = 60
    step_size: float = 10.0
    noise_std: float = 0.005
    gradient_max: float = 0.03
    buffer: int = 8192
    fresh: float = 0.05
    final_steps: int = 256


class ConvEnergy(nn.Module):
    """E(x), a small convolutional network; every layer halves the resolution, with Swish between.

    It has no normalisation: one that couples the images of a batch would make an energy depend on its
    neighbours. The linear layers know positions. sigma and y are ignored.

    Args:
        shape: (C, H, W) of an image.
        channels: of each layer; the first one is 5 x 5, padded by 4 so that strokes may touch the border.

    Source: the network of Lippe's "Deep Energy-Based Generative Models" (UvA deep learning tutorial 8).
    """

    def __init__(self, shape: Sequence[int], *, channels: Sequence[int] = (32, 64, 128, 128)) -> None:
        super().__init__()
        c, side = shape[0], shape[1:]
        self.layers = nn.ModuleList()
        for k, c_out in enumerate(channels):
            kernel, padding = (5, 4) if k == 0 else (3, 1)
            self.layers.append(nn.Conv2d(c, c_out, kernel, stride=2, padding=padding))
            c, side = c_out, [(s + 2 * padding - kernel) // 2 + 1 for s in side]
        self.hidden = nn.Linear(c * side[0] * side[1], c)
        self.out = nn.Linear(c, 1)

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        """Return E (B,) for x (B, C, H, W), in x's dtype."""
        h = x.to(self.out.weight.dtype)
        for layer in self.layers:
            h = F.silu(layer(h))
        h = F.silu(self.hidden(h.flatten(1)))
        e: Tensor = self.out(h).squeeze(1).to(x.dtype)
        return e


def conv_energy_of(config: ModelConfig) -> ConvEnergy:
    """Return the energy of a configuration, freshly initialised."""
    return ConvEnergy(config.shape, **config.net)


class ReplayBuffer:
    """Keep persistent chains between training steps, in one preallocated tensor.

    Args:
        size: number of chains.
        shape: (C, H, W) of an image.
        generator: of the first starts, uniform in [-1, 1].
    """

    def __init__(self, size: int, shape: Sequence[int], generator: torch.Generator) -> None:
        self.x = torch.empty(size, *shape, device=generator.device).uniform_(-1, 1, generator=generator)

    def take(self, n: int, fresh: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return the indices of n different chains, (n,), and their images, (n, C, H, W).

        Args:
            fresh: the probability of each chain to start again from noise, uniform in [-1, 1].

        Raises:
            ValueError: the buffer holds fewer than n chains.
        """
        if n > len(self.x):
            raise ValueError(f"the replay buffer holds {len(self.x)} chains, fewer than the {n} of a batch")
        chosen = torch.randperm(len(self.x), generator=generator, device=self.x.device)[:n]
        x = self.x[chosen]
        start = torch.empty_like(x).uniform_(-1, 1, generator=generator)
        restarted = torch.rand(n, generator=generator, device=x.device) < fresh
        return chosen, torch.where(restarted.view(-1, 1, 1, 1), start, x)

    def put(self, chosen: Tensor, x: Tensor) -> None:
        """Store the ends of the chains, x (n, C, H, W), by their indices, (n,)."""
        self.x[chosen] = x


def walk(energy: Energy, x: Tensor, chains: ChainConfig, steps: int, noise: Noise) -> Tensor:
    """Return the ends of chains of this many steps that start at x, (B, C, H, W) in [-1, 1]."""
    sampler = langevin(
        x,
        1.0,
        torch.zeros(len(x), dtype=torch.long, device=x.device),
        steps=steps,
        step_size=chains.step_size,
        noise_std=chains.noise_std,
        gradient_max=chains.gradient_max,
        inside=partial(torch.clamp, min=-1, max=1),
        noise=noise,
    )
    return sample(sampler, partial(slope, energy))


def contrastive_loss(
    energy: Energy, x_data: Tensor, x_negative: Tensor, alpha: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the loss, a scalar, and the energies of data and of negatives, (B,) each.

    Args:
        energy: without noise levels and classes; sigma is 1 and y is 0.
        x_data, x_negative: (N, C, H, W) and (M, C, H, W), in [-1, 1].
        alpha: weight of the squared energies, without which both drift away together.

    Source: Du & Mordatch 2019, eq. (5) with the regulariser of section 3.3.
    """
    x = torch.cat([x_data, x_negative])  # one forward pass for both
    e = energy(x, x.new_ones(len(x)), torch.zeros(len(x), dtype=torch.long, device=x.device))
    e_data, e_negative = e.split([len(x_data), len(x_negative)])
    magnitude = e_data.square().mean() + e_negative.square().mean()
    return e_data.mean() - e_negative.mean() + alpha * magnitude, e_data, e_negative
