"""Consistency: tune a denoiser to answer, anywhere on a path of the ODE, with the image at its end.

A denoiser answers with the mean of all images that x_t may come from. Tuning asks for the same answer at two
levels t > r of one image and one noise, and moves r toward t, stage by stage.
"""

import math

import torch
from torch import Tensor

from genserve.sampling.samplers import Model


def lower_levels(t: Tensor, stage: int, q: float = 4.0, floor: float = 0.0) -> Tensor:
    """Return r = t (1 - (1 + 8 sigmoid(-t)) / q**(stage + 1)), at least 0, the level compared with t, (B,).

    In the first stage r is 0 for small t, and the model only denoises there; each stage divides t - r by q.

    Args:
        t: (B,), noise levels, above 0.
        stage: counts from 0.
        floor: an r below it counts as 0. Little noise leaves no doubt which image it hides, and an answer
            that is compared with the image itself cannot drift.

    Source: Geng et al. 2024, "Consistency Models Made Easy" (arXiv:2406.14548), section 3.2 and appendix; the
    floor is ours.
    """
    r = t * (1 - (1 + 8 * torch.sigmoid(-t)) / q ** (stage + 1))
    return torch.where(r < floor, 0.0, r).clamp(min=0)


def consistency_loss(
    model: Model, target: Model, x_0: Tensor, t: Tensor, r: Tensor, y: Tensor, eps: Tensor, huber: float
) -> Tensor:
    """Return the distance of the model's answer at t to the target's at r, over t - r, (B,).

    Both are given the same image with the same noise. At r = 0 the image itself is the target.

    Args:
        target: a slow copy of the model, which gets no gradient. With the model itself as its target, any
            error that both answers share, such as too much contrast, could grow without end.
        x_0: (B, C, H, W), data in [-1, 1];  eps: standard normal like x_0;
        t, r: (B,), noise levels, r below t;  y: (B,);
        huber: errors far above it count by their size, errors far below it by their square.

    Source: Geng et al. 2024, algorithm 1, the target that of Song et al. 2023 (arXiv:2303.01469), alg. 3;
    the pseudo-Huber metric of Song & Dhariwal 2023 (arXiv:2310.14189).
    """
    expected = x_0.clone()
    noisy = r > 0
    if noisy.any():
        with torch.no_grad():
            x_r = x_0 + r.view(-1, 1, 1, 1) * eps
            expected[noisy] = target(x_r[noisy], r[noisy], y[noisy]).to(x_0.dtype)
    error = (model(x_0 + t.view(-1, 1, 1, 1) * eps, t, y) - expected).flatten(1)
    c = huber * math.sqrt(error.shape[1])
    return ((error.square().sum(1) + c**2).sqrt() - c) / (t - r)
