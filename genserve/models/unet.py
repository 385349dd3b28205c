"""The UNet F in a denoiser: residual blocks, concatenated skips, attention, scale and shift by sigma.

A `patch` of 2 folds each 2 x 2 square of pixels into channels first (space to depth), so that the widest
convolutions run on a quarter of the positions: the largest single saving on a CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 16  # channels per group in GroupNorm


@dataclass(frozen=True, kw_only=True)
class UNetConfig:
    """The size of a UNet.

    Args:
        patch: side of the pixel squares that are folded into channels first, 1 for none.
        channels: width of each level; between levels the resolution halves.
        blocks: residual blocks per level, on the way down and on the way up.
        attention: resolutions with self-attention.
        heads: number of heads in each attention.
        dropout: probability, in each residual block.
    """

    patch: int = 2
    channels: tuple[int, ...] = (64, 128)
    blocks: int = 1
    attention: tuple[int, ...] = (7,)
    heads: int = 4
    dropout: float = 0.0


def zero(module: nn.Conv2d) -> nn.Conv2d:
    """Set weights and bias of a convolution to 0 and return it: its residual branch then starts silent."""
    nn.init.zeros_(module.weight)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def norm(channels: int) -> nn.GroupNorm:
    """Return a GroupNorm, which stays inside each image: nothing couples the images of a batch."""
    return nn.GroupNorm(max(1, channels // GROUP), channels)


class Fourier(nn.Module):
    """Sines and cosines of c_noise, (B,) -> (B, dim); Tancik et al. 2020, arXiv:2006.10739."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.n_frequencies = dim // 2

    def frequencies(self, device: torch.device) -> Tensor:
        """Return the frequencies, (dim / 2,)."""
        return torch.logspace(-1, 1.5, self.n_frequencies, device=device)

    def forward(self, c_noise: Tensor) -> Tensor:
        # always float32, whatever the network's own precision: a phase of 30 in bf16 is wrong by 0.06
        phase = c_noise.float().unsqueeze(1) * self.frequencies(c_noise.device)
        return torch.cat([phase.cos(), phase.sin()], dim=1)


class Block(nn.Module):
    """norm, SiLU, conv, norm with scale and shift from the embedding, SiLU, dropout, conv; plus the input."""

    def __init__(self, c_in: int, c_out: int, c_emb: int, dropout: float) -> None:
        super().__init__()
        self.norm_1, self.norm_2 = norm(c_in), norm(c_out)
        self.conv_1 = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.conv_2 = zero(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.modulate = nn.Linear(c_emb, 2 * c_out)
        self.dropout = nn.Dropout(dropout)
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.modulate(emb).unsqueeze(-1).unsqueeze(-1).chunk(2, dim=1)
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = F.silu(self.norm_2(h) * (1 + scale) + shift)
        out: Tensor = self.skip(x) + self.conv_2(self.dropout(h))
        return out


class Attention(nn.Module):
    """Self-attention over the positions of one image, (B, C, H, W) -> the same."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = norm(channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = zero(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, 3, self.heads, c // self.heads, h * w).unbind(1)
        # Written out: on a CPU the fused kernel's backward pass takes a quarter of a training step at 7 x 7.
        weights = torch.softmax((q.transpose(2, 3) @ k).float() * (c // self.heads) ** -0.5, dim=-1)
        mixed = (v @ weights.to(v.dtype).transpose(2, 3)).reshape(b, c, h, w)
        out: Tensor = x + self.out(mixed)
        return out


class Stage(nn.Module):
    """One residual block, with attention after it if heads is not 0."""

    def __init__(self, c_in: int, c_out: int, c_emb: int, dropout: float, heads: int) -> None:
        super().__init__()
        self.block = Block(c_in, c_out, c_emb, dropout)
        self.attention = Attention(c_out, heads) if heads else nn.Identity()

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        out: Tensor = self.attention(self.block(x, emb))
        return out


class UNet(nn.Module):
    """(x (B, C, H, W), c_noise (B,), y (B,)) -> (B, C, H, W).

    Args:
        shape: (C, H, W) of an image.
        n_classes: 0 for none; y is then 0 everywhere. Class n_classes means "no class".
        patch: side of the pixel squares that are folded into channels first, 1 for none.
        channels: width of each level; between levels the resolution halves.
        blocks: residual blocks per level, down and up; the way up concatenates the outputs of the way down.
        attention: resolutions (H after folding and halving) with self-attention.
        heads: number of heads in each attention.
        dropout: probability in each residual block, 0 to below 1.

    Raises:
        ValueError: the image does not divide into the levels, no level has an attention resolution, or a
            width is not a multiple of the heads.

    Source: Ho et al. 2020, appendix B; scale and shift of Dhariwal & Nichol 2021 (arXiv:2105.05233), sec. 3.
    """

    def __init__(
        self,
        shape: Sequence[int],
        n_classes: int = 0,
        *,
        patch: int = 2,
        channels: Sequence[int] = (64, 128),
        blocks: int = 1,
        attention: Sequence[int] = (7,),
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        heads_at = _heads_at(shape, patch, channels, attention, heads)
        c_folded = shape[0] * patch**2
        c_emb = 4 * channels[0]
        self.patch = patch
        self.embed_noise = nn.Sequential(
            Fourier(channels[0]), nn.Linear(channels[0], c_emb), nn.SiLU(), nn.Linear(c_emb, c_emb)
        )
        self.embed_class = nn.Embedding(n_classes + 1, c_emb)
        nn.init.normal_(self.embed_class.weight, std=0.5)

        self.conv_in = nn.Conv2d(c_folded, channels[0], 3, padding=1)
        c = channels[0]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, c_level in enumerate(channels):
            widths = [c, *[c_level] * blocks][:blocks]
            stages = [Stage(width, c_level, c_emb, dropout, heads_at[level]) for width in widths]
            self.down.append(nn.ModuleList(stages))
            c = c_level
        self.middle = Stage(c, c, c_emb, dropout, heads_at[-1])
        for level, c_level in reversed(list(enumerate(channels))):
            widths = [c + c_level, *[2 * c_level] * blocks][:blocks]
            stages = [Stage(width, c_level, c_emb, dropout, heads_at[level]) for width in widths]
            self.up.append(nn.ModuleList(stages))
            c = c_level
        self.shrink, self.grow = _halvings(channels), _doublings(channels)
        self.norm_out = norm(c)
        self.conv_out = zero(nn.Conv2d(c, c_folded, 3, padding=1))

    def forward(self, x: Tensor, c_noise: Tensor, y: Tensor) -> Tensor:
        precision = self.conv_in.weight.dtype  # the network computes in that of its weights
        emb = c_noise
        for layer in self.embed_noise:
            emb = layer(emb).to(precision)
        emb = F.silu(emb + self.embed_class(y))
        h = self.conv_in(F.pixel_unshuffle(x, self.patch).to(precision))
        skips: list[Tensor] = []
        # TorchScript's zip has no strict, and unlike mypy it knows what is in a ModuleList of ModuleLists
        for stages, shrink in zip(self.down, self.shrink):  # noqa: B905
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(h, emb)
                skips.append(h)
            h = shrink(h)
        h = self.middle(h, emb)
        for stages, grow in zip(self.up, self.grow):  # noqa: B905
            for stage in stages:  # type: ignore[attr-defined]
                h = stage(torch.cat([h, skips.pop()], dim=1), emb)
            h = grow(h)
        return F.pixel_shuffle(self.conv_out(F.silu(self.norm_out(h))), self.patch)


# after each level but the last: half the resolution on the way down, double on the way up
def _halvings(channels: Sequence[int]) -> nn.ModuleList:
    convs = [nn.Conv2d(c, c, 3, stride=2, padding=1) for c in channels[:-1]]
    return nn.ModuleList([*convs, nn.Identity()])


def _doublings(channels: Sequence[int]) -> nn.ModuleList:
    upper = reversed(channels[1:])
    convs = [nn.Sequential(nn.Upsample(scale_factor=2.0), nn.Conv2d(c, c, 3, padding=1)) for c in upper]
    return nn.ModuleList([*convs, nn.Identity()])


def _heads_at(
    shape: Sequence[int], patch: int, channels: Sequence[int], attention: Sequence[int], heads: int
) -> list[int]:
    """Return the heads of each level, 0 without attention; arguments and errors as UNet's."""
    _, height, width = shape
    factor = patch * 2 ** (len(channels) - 1)
    if height % factor or width % factor:
        raise ValueError(
            f"a {height} x {width} image does not divide by patch * 2**(levels - 1) = {factor}: "
            f"change patch ({patch}), the number of channels ({len(channels)}) or the image size"
        )
    resolutions = [height // patch // 2**level for level in range(len(channels))]
    if missing := sorted(set(attention) - set(resolutions)):
        raise ValueError(f"attention at {missing}, but the levels have resolutions {resolutions}")
    if bad := [c for c, r in zip(channels, resolutions, strict=True) if r in attention and c % heads]:
        raise ValueError(f"channels {bad} must be a multiple of heads ({heads})")
    return [heads if r in attention else 0 for r in resolutions]
