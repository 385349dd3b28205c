"""Consistency tuning against the Gaussian, whose paths have ends in closed form."""

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from genserve.models.consistency import consistency_loss, lower_levels
from genserve.sampling.samplers import Model

STD = 0.5


def test_levels_come_closer_by_q_each_stage() -> None:
    t = torch.logspace(-3, 2, 50, dtype=torch.float64)
    gaps = [t - lower_levels(t, stage, q=4.0) for stage in range(4)]
    assert torch.equal(gaps[0][t < 0.5], t[t < 0.5])  # at first small t is compared with no noise
    for before, after in pairwise(gaps[1:]):  # from the second stage on none is cut at 0
        torch.testing.assert_close(before, 4 * after)
    one = torch.tensor([1.0], dtype=torch.float64)
    expected = 1 - (1 + 8 / (1 + math.e)) / 16
    assert lower_levels(one, stage=1, q=4.0).item() == pytest.approx(expected, rel=1e-12)
    above, below = (lower_levels(one, 1, 4.0, floor=expected + by).item() for by in (-1e-9, 1e-9))
    assert (above, below) == (pytest.approx(expected), 0.0)


def batch(n: int = 4096) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    x_0 = STD * torch.randn(n, 1, 1, 4, generator=rng, dtype=torch.float64)
    t = torch.exp(0.3 + 1.6 * torch.randn(n, generator=rng, dtype=torch.float64))
    eps = torch.randn(x_0.shape, generator=rng, dtype=torch.float64)
    return x_0, t, torch.zeros(n, dtype=torch.long), eps


def powered(power: Tensor) -> Model:
    """Return share**power * x: the denoiser of N(0, STD**2) at power 1, the end of its paths at 1/2."""

    def model(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        share = STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2)
        return share**power * x

    return model


@pytest.mark.parametrize(("stage", "near"), [(5, 0.01), (1, 0.2)])
def test_tuning_a_denoiser_leads_to_the_end_of_the_path(stage: int, near: float) -> None:
    """From the denoiser, power 1, descent ends at power 1/2; the earlier the stage, the less exactly."""
    power = torch.ones((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([power], lr=0.02)
    x_0, t, y, eps = batch()
    for _ in range(200):
        optimizer.zero_grad()
        model, target = powered(power), powered(power.detach())
        loss = consistency_loss(model, target, x_0, t, lower_levels(t, stage), y, eps, huber=10.0)
        loss.mean().backward()
        optimizer.step()
    assert power.item() == pytest.approx(0.5, abs=near)


def test_only_the_answer_at_t_learns_and_at_r_0_the_image_is_the_answer() -> None:
    x_0, t, y, eps = batch(8)
    power = torch.full((), 0.7, dtype=torch.float64, requires_grad=True)
    r = torch.where(torch.arange(8) < 4, 0.0, 0.5 * t)
    slow = torch.full((), 0.6, dtype=torch.float64, requires_grad=True)
    loss = consistency_loss(powered(power), powered(slow), x_0, t, r, y, eps, huber=0.06)
    assert torch.autograd.grad(loss.sum(), slow, retain_graph=True, allow_unused=True) == (None,)

    frozen = powered(slow.detach())
    target = torch.where((r > 0).view(-1, 1, 1, 1), frozen(x_0 + r.view(-1, 1, 1, 1) * eps, r, y), x_0)
    error = (powered(power)(x_0 + t.view(-1, 1, 1, 1) * eps, t, y) - target).flatten(1).norm(dim=1)
    c = 0.06 * 4**0.5
    expected = ((error**2 + c**2).sqrt() - c) / (t - r)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss.sum(), power, retain_graph=True)
    (expected_gradient,) = torch.autograd.grad(expected.sum(), power)
    torch.testing.assert_close(gradient, expected_gradient)
