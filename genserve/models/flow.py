"""A normalising flow over vectors: affine couplings that know the class, exact both ways."""

import math

import torch
from torch import Tensor, nn


def log_normal(eps: Tensor) -> Tensor:
    """Return the log density of standard normal vectors, (B, D) -> (B,)."""
    return -0.5 * (eps.square() + math.log(2 * math.pi)).sum(1)


class Coupling(nn.Module):
    """Permute, keep half of the numbers, and scale and move the other half by what the first half says.

    The log scale is 2 tanh(s / 2), so that no row is blown up. It starts as the permutation alone.

    Source: Dinh et al. 2017 (Real NVP, arXiv:1605.08803), eq. (7) and (8).
    """

    order: Tensor  # (D,) int64, a permutation
    back: Tensor  # its inverse

    def __init__(self, dim: int, n_classes: int, hidden: int, order: Tensor) -> None:
        super().__init__()
        self.register_buffer("order", order)
        self.register_buffer("back", order.argsort())
        last = nn.Linear(hidden, dim)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.net = nn.Sequential(
            nn.Linear(dim // 2 + n_classes, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), last
        )

    def _scale_shift(self, kept: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        s, shift = self.net(torch.cat([kept, one_hot], dim=1)).chunk(2, dim=1)
        return 2 * torch.tanh(s / 2), shift

    def forward(self, z: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        """Return the image of z (B, D), and the log determinant of the Jacobian (B,)."""
        kept, rest = z[:, self.order].chunk(2, dim=1)
        log_scale, shift = self._scale_shift(kept, one_hot)
        return torch.cat([kept, rest * log_scale.exp() + shift], dim=1), log_scale.sum(1)

    @torch.jit.export
    def inverse(self, z: Tensor, one_hot: Tensor) -> Tensor:
        """Return what `forward` makes z (B, D) of."""
        kept, rest = z.chunk(2, dim=1)
        log_scale, shift = self._scale_shift(kept, one_hot)
        return torch.cat([kept, (rest - shift) * torch.exp(-log_scale)], dim=1)[:, self.back]


def orders(dim: int, couplings: int) -> list[Tensor]:
    """Return a permutation (D,) for each coupling; of two in a row the second keeps what the first moved.

    Every second one is random: with all of them random, each number is left alone by every coupling with
    probability 2**-couplings, and so would never learn.
    """
    rng = torch.Generator().manual_seed(0)  # they belong to the weights, not to a run's seed
    half, result = dim // 2, []
    for k in range(couplings):
        order = torch.randperm(dim, generator=rng)
        result.append(torch.cat([order[order >= half], order[order < half]]) if k % 2 else order)
    return result


class Flow(nn.Module):
    """z (B, D) and the class as one-hot (B, n) -> standard noise (B, D), and back.

    Args:
        dim: D, even.
        n_classes: at least 1.
        couplings: how many.
        hidden: width of the networks in them.

    Raises:
        ValueError: dim is odd.
    """

    def __init__(self, dim: int, n_classes: int, couplings: int, hidden: int) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"a coupling needs an even number of dimensions, got {dim}")
        self.couplings = nn.ModuleList(
            Coupling(dim, n_classes, hidden, order) for order in orders(dim, couplings)
        )
        self.centre, self.log_scale = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))

    def forward(self, z: Tensor, one_hot: Tensor) -> tuple[Tensor, Tensor]:
        """Return the noise of z, and the log determinant of the Jacobian, (B,)."""
        z = (z - self.centre) * self.log_scale.exp()
        log_det = self.log_scale.sum().expand(len(z))
        for coupling in self.couplings:
            z, more = coupling(z, one_hot)
            log_det = log_det + more
        return z, log_det

    @torch.jit.export
    def inverse(self, eps: Tensor, one_hot: Tensor) -> Tensor:
        """Return the z of noise eps."""
        for coupling in self.couplings[::-1]:
            eps = coupling.inverse(eps, one_hot)  # type: ignore[operator]
        return eps * torch.exp(-self.log_scale) + self.centre
