"""The UNet denoiser once more, in operations that a compiler makes fast on a CPU.

The same weights and the same function as `models.unet`, written so that OpenVINO keeps every image in one
layout and fuses what lies between two convolutions:

- A GroupNorm is a factor and a summand for each channel, from means over positions. As an operation of its
  own it changes the layout twice, and what follows is slow: at 16 images it took half of an evaluation.
- Attention works on rows of channels, which is how the images lie already.
- The scale and shift of all blocks are one matrix product.
- Of an energy, repeating pixels is an operation of its own, which `slopes` knows the gradient of.

c_noise is an argument: computed inside, the phases of its Fourier features would be rounded to bf16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genserve.compiling.slopes import doubled
from genserve.models.denoiser import Denoiser
from genserve.models.energy import ResidualEnergy
from genserve.models.unet import Attention, Block, Fourier, Stage, UNet


class Restated(nn.Module):
    """A denoiser, or the energy with a denoiser in it: (x, sigma, y, c_noise) -> E[x_0 | x] or E.

    Args:
        network: a Denoiser or a ResidualEnergy whose network is a UNet; its weights are shared.

    Raises:
        ValueError: it is another kind of network.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.energy = network if isinstance(network, ResidualEnergy) else None
        denoiser = network if self.energy is None else self.energy.residual
        if not isinstance(denoiser, Denoiser) or not isinstance(denoiser.net, UNet):
            raise ValueError(f"{type(network).__name__} is no network of a denoiser and a UNet")
        self.denoiser = denoiser
        blocks = [module for module in denoiser.net.modules() if isinstance(module, Block)]
        self.widths = [block.modulate.out_features for block in blocks]
        self.numbers = {block: k for k, block in enumerate(blocks)}
        self.weight = torch.cat([block.modulate.weight.detach() for block in blocks])
        self.bias = torch.cat([block.modulate.bias.detach() for block in blocks])
        fourier, *self.embedding = denoiser.net.embed_noise.children()
        assert isinstance(fourier, Fourier)
        self.frequencies = fourier.frequencies(self.weight.device)

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor, c_noise: Tensor) -> Tensor:
        """Return what the network returns, as `Denoiser.forward` and `ResidualEnergy.forward`.

        Args:
            c_noise: (B, 1), ln(sigma) / 4.
        """
        scaled, known, c_out = self.denoiser.preconditioned(x, sigma)
        x_0: Tensor = known + c_out * self._unet(scaled, c_noise, y)
        return x_0 if self.energy is None else self.energy.of_residual(x - x_0, sigma)

    def _unet(self, x: Tensor, c_noise: Tensor, y: Tensor) -> Tensor:
        net: UNet = self.denoiser.net  # type: ignore[assignment]
        phase = c_noise * self.frequencies
        emb = torch.cat([phase.cos(), phase.sin()], dim=1)
        for layer in self.embedding:
            emb = layer(emb)
        emb = F.silu(emb + net.embed_class(y))
        modulation = F.linear(emb, self.weight, self.bias).split(self.widths, dim=1)
        h = net.conv_in(F.pixel_unshuffle(x, net.patch))
        skips = []
        for stages, shrink in zip(net.down, net.shrink, strict=True):
            for stage in stages:  # type: ignore[attr-defined]
                h = self._stage(stage, h, modulation)
                skips.append(h)
            h = shrink(h)
        h = self._stage(net.middle, h, modulation)
        for stages, grow in zip(net.up, net.grow, strict=True):
            for stage in stages:  # type: ignore[attr-defined]
                h = self._stage(stage, torch.cat([h, skips.pop()], dim=1), modulation)
            h = grow(h) if self.energy is None else _grown(grow, h)
        factor, summand = _normalising(net.norm_out, h)
        return F.pixel_shuffle(net.conv_out(F.silu(h * factor + summand)), net.patch)

    def _stage(self, stage: Stage, x: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        x = _block(stage.block, x, modulation[self.numbers[stage.block]])
        return _attended(stage.attention, x) if isinstance(stage.attention, Attention) else x


def _block(block: Block, x: Tensor, modulation: Tensor) -> Tensor:
    """Return `Block`'s answer; its scale and shift go into the factor and the summand of its norm."""
    scale, shift = modulation.unsqueeze(-1).unsqueeze(-1).chunk(2, dim=1)
    factor, summand = _normalising(block.norm_1, x)
    h = block.conv_1(F.silu(x * factor + summand))
    factor, summand = _normalising(block.norm_2, h)
    h = F.silu(h * (factor * (1 + scale)) + (summand * (1 + scale) + shift))
    out: Tensor = block.skip(x) + block.conv_2(h)
    return out


def _grown(grow: nn.Module, x: Tensor) -> Tensor:
    for layer in grow.children():
        x = doubled(x) if isinstance(layer, nn.Upsample) else layer(x)
    return x


def _normalising(norm: nn.GroupNorm, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return factor and summand, (B, C, 1, 1), with which a GroupNorm is x * factor + summand.

    The mean of squares is a norm over positions: a product x * x would be rounded before it is summed.
    """
    n, groups, width = x.shape[0], norm.num_groups, norm.num_channels // norm.num_groups
    positions = x.shape[2] * x.shape[3]
    mean = x.mean((2, 3)).reshape(n, groups, width).mean(2, keepdim=True)
    squares = torch.linalg.vector_norm(x, 2, (2, 3)).square() / positions
    variance = squares.reshape(n, groups, width).mean(2, keepdim=True) - mean * mean
    factor = (variance + norm.eps).rsqrt() * norm.weight.view(1, groups, width)
    summand = norm.bias.view(1, groups, width) - mean * factor
    return factor.reshape(n, norm.num_channels, 1, 1), summand.reshape(n, norm.num_channels, 1, 1)


def _attended(attention: Attention, x: Tensor) -> Tensor:
    """Return `Attention`'s answer."""
    n, c, height, width = x.shape
    size = c // attention.heads
    factor, summand = _normalising(attention.norm, x)
    rows = (x * factor + summand).permute(0, 2, 3, 1).reshape(n, height * width, c)
    columns = F.linear(rows, attention.qkv.weight.flatten(1), attention.qkv.bias).chunk(3, dim=2)
    q, k, v = (part.reshape(n, height * width, attention.heads, size).permute(0, 2, 1, 3) for part in columns)
    mixed = torch.softmax((q @ k.transpose(2, 3)) * size**-0.5, dim=-1) @ v
    rows = mixed.permute(0, 2, 1, 3).reshape(n, height * width, c)
    rows = F.linear(rows, attention.out.weight.flatten(1), attention.out.bias)
    return x + rows.reshape(n, height, width, c).permute(0, 3, 1, 2)
