"""Consistency: a model that answers, anywhere on a path of the ODE, with the image at its end.

A denoiser is the start: it answers with the mean of all images that x_t may come from. Tuning asks for the
same answer at two levels t > r of one image and one noise, and moves r toward t, stage by stage.
"""

import math

import torch
from torch import Tensor

from genserve.diffusion import Model


def lower_levels(t: Tensor, stage: int, q: float = 4.0) -> Tensor:
    """Return r = t (1 - (1 + 8 sigmoid(-t)) / q**(stage + 1)), at least 0, the level compared with t, (B,).

    In the first stage it is 0 for small t, where the model then only denoises; each stage divides t - r by q.

    Source: Geng et al. 2024, "Consistency Models Made Easy" (arXiv:2406.14548), section 3.2 and appendix.
    """
    return (t * (1 - (1 + 8 * torch.sigmoid(-t)) / q ** (stage + 1))).clamp(min=0)


def consistency_loss(
    model: Model, x_0: Tensor, t: Tensor, r: Tensor, y: Tensor, eps: Tensor, huber: float
) -> Tensor:
    """Return how far the answers at t and r of the same image and noise are apart, over t - r, (B,).

    Only the answer at t learns; at r = 0 the image itself is the answer.

    Args:
        x_0: (B, C, H, W), data in [-1, 1];  eps: standard normal like x_0;
        t, r: (B,), noise levels, r below t;  y: (B,);
        huber: errors of a value far above it count by size, below by their square.

    Source: Geng et al. 2024, algorithm 1; the pseudo-Huber metric of Song & Dhariwal 2023 (arXiv:2310.14189).
    """
    with torch.no_grad():
        x_r = x_0 + r.view(-1, 1, 1, 1) * eps
        noisy = r > 0
        target = x_0.clone()
        if noisy.any():
            target[noisy] = model(x_r[noisy], r[noisy], y[noisy]).to(x_0.dtype)
    error = (model(x_0 + t.view(-1, 1, 1, 1) * eps, t, y) - target).flatten(1)
    c = huber * math.sqrt(error.shape[1])
    return ((error.square().sum(1) + c**2).sqrt() - c) / (t - r)
