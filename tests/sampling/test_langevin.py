"""Langevin dynamics against mathematics done by hand: stationary distributions, clamps, costs."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from exact import drawing, ended, labels, silent, starts
from torch import Tensor

from genserve.sampling.langevin import Energy, annealed, langevin, mala, slope
from genserve.sampling.samplers import Sampler, heun, sample
from genserve.sampling.schedules import karras
from genserve.sampling.wrappers import denoised

MEAN, STD = 0.7, 0.5
N = 20_000  # chains, each an "image" of one pixel
ERRORS = 4  # standard errors that a statistic may be off


def gaussian(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """-log density, but for a constant, of N(MEAN, STD**2) seen through noise of sigma."""
    wide = sigma.view(-1, 1, 1, 1)
    return ((x - MEAN).square() / (2 * (STD**2 + wide**2))).flatten(1).sum(1)


def plain(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """The same without noise levels."""
    return gaussian(x, torch.zeros_like(sigma), y)


def wells(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """Two wells: 0.3 of the mass at -1 and 0.7 at 1, both of width 0.5."""
    parts = torch.stack([math.log(w) - (x - m).square() / (2 * 0.5**2) for w, m in ((0.3, -1.0), (0.7, 1.0))])
    return -parts.logsumexp(0).flatten(1).sum(1)


def counted(sampler: Sampler, energy: Energy) -> int:
    """Return how often a sampler asks."""
    queries = []

    def model(*query: Tensor) -> Any:
        queries.append(query)
        return slope(energy, *query)

    sample(sampler, model)
    return len(queries)


def test_ula_draws_the_gaussian_with_the_bias_of_its_step() -> None:
    """Its stationary variance is STD**2 / (1 - step / (2 STD**2)): 11 % too much at this step, 20 errors."""
    step = 0.2 * STD**2
    x = ended(langevin(starts(N), 1.0, labels(starts(N)), steps=200, step_size=step, noise=drawing()), plain)
    variance = STD**2 / (1 - step / (2 * STD**2))
    error = variance * math.sqrt(2 / N)
    assert x.mean().item() == pytest.approx(MEAN, abs=ERRORS * math.sqrt(variance / N))
    assert x.var().item() == pytest.approx(variance, abs=ERRORS * error)
    assert x.var().item() > STD**2 + 2 * ERRORS * error


def test_mala_is_exact_at_the_step_where_ula_is_biased() -> None:
    step = 0.2 * STD**2
    taken: list[Tensor] = []
    walk = mala(
        starts(N), 1.0, labels(starts(N)), steps=200, step_size=step, noise=drawing(), accepted=taken.append
    )
    x = ended(walk, plain)
    assert x.mean().item() == pytest.approx(MEAN, abs=ERRORS * STD / math.sqrt(N))
    assert x.var().item() == pytest.approx(STD**2, abs=ERRORS * STD**2 * math.sqrt(2 / N))
    share = torch.stack(taken[100:]).double().mean().item()
    assert 0.9 < share < 1  # it does refuse some
    assert len(taken) == 200


def test_mala_gives_two_wells_their_weights() -> None:
    """From starts that are all in the wrong one."""
    walk = mala(-1 + 0.0 * starts(N), 1.0, labels(starts(N)), steps=600, step_size=0.15, noise=drawing())
    right = (ended(walk, wells) > 0).double().mean().item()
    low, high = (0.5 * math.erfc(-z / math.sqrt(2)) for z in (-2.0, 2.0))  # of a Gaussian two widths off
    expected = 0.3 * low + 0.7 * high
    assert right == pytest.approx(expected, abs=ERRORS * math.sqrt(expected * (1 - expected) / N))


def test_langevin_in_two_wells_is_right_up_to_its_step() -> None:
    walk = langevin(starts(N), 1.0, labels(starts(N)), steps=3000, step_size=0.005, noise=drawing())
    x = ended(walk, wells)
    assert x.mean().item() == pytest.approx(0.4, abs=ERRORS * math.sqrt(1.09 / N) + 0.01)
    assert x.var().item() == pytest.approx(0.25 + 0.84, rel=0.03)


def test_annealed_langevin_draws_the_gaussian_from_wide_noise() -> None:
    sigmas = karras(200, 0.01, 20.0)
    few: dict[str, Any] = {"step_size": 0.2, "noise_std": math.sqrt(0.4), "steps": 10, "noise": drawing()}
    walk = annealed(20 * starts(N), sigmas, labels(starts(N)), **few)
    x = ended(walk, gaussian)
    assert x.mean().item() == pytest.approx(MEAN, abs=ERRORS * STD / math.sqrt(N) + 0.01)
    assert x.std().item() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("step_size", [0.3, 1.0, 1.3])
def test_consistent_noise_is_that_of_every_level(step_size: float) -> None:
    """Of one point with noise of sigma all the noise is known: after each step, that of the next level."""

    def point(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return ((x - MEAN).square() / (2 * sigma.view(-1, 1, 1, 1) ** 2)).flatten(1).sum(1)

    x, levels = 20 * starts(N) + MEAN, []

    def model(x: Tensor, sigma: Tensor, y: Tensor) -> Any:
        levels.append(((x - MEAN).std() / sigma[0]).item())
        return slope(point, x, sigma, y)

    x_0 = sample(
        annealed(x, karras(9, 0.01, 20.0), labels(x), step_size=step_size, steps=2, noise=drawing()), model
    )
    assert levels == pytest.approx([1.0] * 19, rel=ERRORS / math.sqrt(2 * N))
    torch.testing.assert_close(x_0, torch.full_like(x_0, MEAN))


def test_without_noise_langevin_descends_to_the_mean_and_draws_none() -> None:
    walk = langevin(starts(50), 1.0, labels(starts(50)), steps=100, step_size=0.1, noise_std=0, noise=silent)
    torch.testing.assert_close(ended(walk, plain), torch.full((50, 1, 1, 1), MEAN).double())


def test_clamps_hold_the_gradient_and_the_value() -> None:
    far = torch.full((1, 1, 1, 1), 5.0)
    limits: dict[str, Any] = {"steps": 1, "step_size": 0.5, "noise_std": 0.0, "noise": silent}
    held = ended(langevin(far, 1.0, labels(far), gradient_max=0.2, **limits), plain)
    assert held.item() == pytest.approx(5 - 0.5 * 0.2)
    inside = partial(torch.clamp, min=-1, max=1)
    assert (
        ended(langevin(far, 1.0, labels(far), gradient_max=0.2, inside=inside, **limits), plain).item() == 1
    )


@pytest.mark.parametrize(
    ("build", "nfe"),
    [
        (lambda x, y: langevin(x, 1.0, y, steps=7, step_size=0.1, noise=drawing()), 7),
        (lambda x, y: mala(x, 1.0, y, steps=7, step_size=0.1, noise=drawing()), 8),
        (lambda x, y: annealed(x, karras(5), y, steps=2, step_size=0.1, noise=drawing()), 11),
        (lambda x, y: denoised(heun(x, karras(5), y)), 9),
    ],
)
def test_a_sampler_asks_as_often_as_it_says(build: Callable[[Tensor, Tensor], Sampler], nfe: int) -> None:
    x = starts(2)
    assert counted(build(x, labels(x)), gaussian) == nfe


# ---- the denoiser in an energy -----------------------------------------------------------------------------
