"""Where a sampler went: its looks, the moments of them that are worth showing, and energies around them."""

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
    model: nn.Module, config: ModelConfig | Spec, how: Setting, y: Tensor, seed: int = 0
) -> tuple[Tensor, list[Query]]:
    """Return images as `draw` does, (N, C, H, W) uint8, and where the sampler looked, from noise on.

    Of two looks at one level, as Heun takes them, the last one counts: there it really went. A sampler that
    walks at one level gets somewhere with every look.
    """
    looks: dict[float, Query] = {}

    def see(_: nn.Module, query: tuple[Tensor, Tensor, Tensor], __: Tensor) -> None:
        here = Query(*(part.detach()[: len(y)].cpu() for part in query))  # guidance asks for all of it twice
        looks[len(looks) if how.one_level else here.sigma[0].item()] = here

    watching = model.register_forward_hook(see)
    try:
        x = draw(model, config, how, y, seed, batch_size=len(y))
    finally:
        watching.remove()
    return x, list(looks.values())


def moments(looks: list[Query], n: int) -> list[int]:
    """Return which looks to show, rising from 0, at most n.

    They lie at even angles arctan(sigma), so that the image comes forth evenly. A walk at one level goes
    fastest at first: its moments lie at even logarithms of the step.
    """
    angles = np.arctan([look.sigma[0].item() for look in looks])
    past = 1 - angles / angles[0]  # from 0; the image itself would be at 1
    if _one_level(looks):
        past = np.log1p(np.arange(len(looks))) / math.log1p(len(looks))
    return sorted({int(np.abs(past - t).argmin()) for t in np.arange(n) / n})


def shown(looks: list[Query], k: int) -> images.Pixels:
    """Return look k as pixels, (B, H, W, C), in the variance-preserving picture: noise stays as gray.

    What walks at one level is shown as it is.
    """
    x, sigma, _ = looks[k]
    return images.to_pixels(x if _one_level(looks) else x / math.hypot(1, sigma[0].item()))


def caption(looks: list[Query], k: int) -> str:
    """Return what look k is called: its noise level, or its step in a walk at one level."""
    return f"step {k}" if _one_level(looks) else rf"$\sigma$ = {looks[k].sigma[0].item():.2g}"


def slopes(energy: nn.Module, looks: list[Query]) -> tuple[Tensor, Tensor]:
    """Return energies and lengths of the gradients at every look, (looks, B) each."""
    device = next(energy.parameters()).device
    seen = [slope(energy, x.to(device), sigma.to(device), y.to(device)) for x, sigma, y in looks]
    lengths = [there.gradient.flatten(1).norm(dim=1) for there in seen]
    return torch.stack([there.energy for there in seen]).cpu(), torch.stack(lengths).cpu()


def _one_level(looks: list[Query]) -> bool:
    return looks[0].sigma[0].item() == looks[-1].sigma[0].item() and len(looks) > 1


class Plane(NamedTuple):
    """Energies in a plane; its coordinates are distances of images, in units of the data's [-1, 1]."""

    u: Tensor  # (n,)
    v: Tensor  # (n,)
    energy: Tensor  # (n, n), rows along v
    way: Tensor  # (k + 1, 2), the first chain until now, projected; its last point is in the plane
    ends: Tensor  # (3, 2), projected


@torch.no_grad()
def plane(energy: nn.Module, looks: list[Query], k: int, ends: Tensor, no_class: int, n: int = 33) -> Plane:
    """Return the energies of the plane through look k of the first chain, noise and all, toward three ends.

    Args:
        energy: (x, sigma, y) -> (B,), read without a class, at the level of the look.
        ends: (3, C, H, W), the images that span the directions; they lie beside the plane, the noise away.
    """
    x, sigma = looks[k].x[:1].flatten(1), looks[k].sigma[0].item()
    corners = ends.flatten(1)
    e = torch.linalg.qr((corners[1:] - corners[0]).T).Q  # (D, 2), orthonormal
    way = torch.cat([look.x[:1].flatten(1) for look in looks[: k + 1]])
    way, seen = (way - corners[0]) @ e, (corners - corners[0]) @ e
    low, high = seen.amin(0), seen.amax(0)
    middle, half = (low + high) / 2, (high - low).max() * 0.8
    u, v = (torch.linspace(m - half, m + half, n) for m in middle.tolist())
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), dim=-1).reshape(-1, 2)
    points = (x + (grid - way[-1]) @ e.T).view(-1, *ends.shape[1:])
    parts = points.to(next(energy.parameters()).device).split(250)
    found = [energy(p, level(sigma, p), torch.full((len(p),), no_class, device=p.device)) for p in parts]
    return Plane(u, v, torch.cat(found).view(n, n).cpu(), way, seen)
