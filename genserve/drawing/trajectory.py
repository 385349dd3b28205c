"""Follow a sampler: record its looks, choose those to show, and read energies around them.

A look is a query of the sampler: x_t, the noise level and the class.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from genserve import images
from genserve.drawing.local import draw
from genserve.models.config import ModelConfig
from genserve.runs.contract import Spec
from genserve.sampling.langevin import slope
from genserve.sampling.samplers import Query, level
from genserve.sampling.settings import Setting


def trajectory(
    model: nn.Module, config: ModelConfig | Spec, setting: Setting, y: Tensor, seed: int = 0
) -> tuple[Tensor, list[Query]]:
    """Return images as `draw` does, (N, C, H, W) uint8, and the looks of the sampler, from noise on.

    Of two looks at one level, as Heun takes them, the last one is kept: the sampler goes on from it. A walk
    at one level goes on from every look.
    """
    looks: dict[float, Query] = {}

    def see(_: nn.Module, query: tuple[Tensor, Tensor, Tensor], __: Tensor) -> None:
        look = Query(*(part.detach()[: len(y)].cpu() for part in query))  # guidance doubles the batch
        looks[len(looks) if setting.one_level else look.sigma[0].item()] = look

    watching = model.register_forward_hook(see)
    try:
        x = draw(model, config, setting, y, seed, batch_size=len(y))
    finally:
        watching.remove()
    return x, list(looks.values())


def moments(looks: list[Query], n: int) -> list[int]:
    """Return the indices of at most n looks to show, rising from 0.

    They lie at even angles arctan(sigma), so that the image appears evenly. A walk at one level is fastest at
    first, so that its moments lie at even logarithms of the step.
    """
    angles = np.arctan([look.sigma[0].item() for look in looks])
    past = 1 - angles / angles[0]  # from 0; the image itself would be at 1
    if _one_level(looks):
        past = np.log1p(np.arange(len(looks))) / math.log1p(len(looks))
    return sorted({int(np.abs(past - t).argmin()) for t in np.arange(n) / n})


def shown(looks: list[Query], k: int) -> images.Pixels:
    """Return look k as pixels, (B, H, W, C), scaled to preserve variance: noise keeps its contrast.

    A look of a walk at one level is shown as it is.
    """
    x, sigma, _ = looks[k]
    return images.to_pixels(x if _one_level(looks) else x / math.hypot(1, sigma[0].item()))


def caption(looks: list[Query], k: int) -> str:
    """Return the caption of look k: its noise level, or its step in a walk at one level."""
    return f"step {k}" if _one_level(looks) else rf"$\sigma$ = {looks[k].sigma[0].item():.2g}"


def slopes(energy: nn.Module, looks: list[Query]) -> tuple[Tensor, Tensor]:
    """Return energies and lengths of the gradients at every look, (looks, B) each."""
    device = next(energy.parameters()).device
    answers = [slope(energy, x.to(device), sigma.to(device), y.to(device)) for x, sigma, y in looks]
    lengths = [answer.gradient.flatten(1).norm(dim=1) for answer in answers]
    return torch.stack([answer.energy for answer in answers]).cpu(), torch.stack(lengths).cpu()


def _one_level(looks: list[Query]) -> bool:
    return looks[0].sigma[0].item() == looks[-1].sigma[0].item() and len(looks) > 1


class Plane(NamedTuple):
    """Energies in a plane; its coordinates are distances of images, in units of the data's [-1, 1]."""

    u: Tensor  # (n,)
    v: Tensor  # (n,)
    energy: Tensor  # (n, n), rows along v
    path: Tensor  # (k + 1, 2), the first chain until now, projected; its last point is in the plane
    ends: Tensor  # (3, 2), projected


@torch.no_grad()
def plane(energy: nn.Module, looks: list[Query], k: int, ends: Tensor, no_class: int, n: int = 33) -> Plane:
    """Return the energies in the plane through look k of the first chain, parallel to three end images.

    Args:
        energy: (x, sigma, y) -> (B,), read without a class, at the noise level of the look.
        ends: (3, C, H, W), the images that span the directions. They have no noise, so that they lie beside
            the plane.
        no_class: the y that means "no class".
        n: points per side.
    """
    x, sigma = looks[k].x[:1].flatten(1), looks[k].sigma[0].item()
    corners = ends.flatten(1)
    e = torch.linalg.qr((corners[1:] - corners[0]).T).Q  # (D, 2), orthonormal
    path = torch.cat([look.x[:1].flatten(1) for look in looks[: k + 1]])
    path, projected = (path - corners[0]) @ e, (corners - corners[0]) @ e
    low, high = projected.amin(0), projected.amax(0)
    middle, half = (low + high) / 2, (high - low).max() * 0.8
    u, v = (torch.linspace(m - half, m + half, n) for m in middle.tolist())
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).reshape(-1, 2)
    points = (x + (grid - path[-1]) @ e.T).view(-1, *ends.shape[1:])
    parts = points.to(next(energy.parameters()).device).split(250)
    energies = [energy(p, level(sigma, p), torch.full((len(p),), no_class, device=p.device)) for p in parts]
    return Plane(u, v, torch.cat(energies).view(n, n).cpu(), path, projected)
