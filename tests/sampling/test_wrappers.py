"""Samplers around samplers: guidance, watching, energies as denoisers, pixels that are known."""

import pytest
import torch
from exact import (
    MEAN,
    NO_CLASS,
    STARTS,
    STD,
    build,
    drawing,
    ended,
    gaussian,
    gaussian_energy,
    labels,
    ode,
    starts,
    two_gaussians,
)
from torch import Tensor

from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Sampler, ddim, heun, sample
from genserve.sampling.schedules import karras
from genserve.sampling.solvers import SAMPLERS, sampler_named
from genserve.sampling.wrappers import denoised, guided, guided_model, inpainted, resampled, watched


@pytest.mark.parametrize("name", SAMPLERS)
def test_guidance_1_is_the_class_and_guidance_0_is_no_class(name: str) -> None:
    def drawn(y: int, guidance: float | None = None) -> Tensor:
        sampler = build(name, STARTS, karras(9), torch.full((3,), y), Streams(0, range(3)))
        return sample(sampler if guidance is None else guided(sampler, guidance, no_class=1), two_gaussians)

    assert torch.equal(drawn(0, guidance=1), drawn(0))
    assert torch.equal(drawn(0, guidance=0), drawn(1))
    assert (drawn(0) - drawn(1)).abs().min() > 0.5  # and they are not all one


@pytest.mark.parametrize("guidance", [0.5, 3.0])
def test_guidance_between_gaussians_is_a_gaussian_further_out(guidance: float) -> None:
    """D_w is linear in the means, so it is the exact denoiser of N(m + w (MEAN - m), STD^2)."""
    sampler = guided(heun(STARTS, karras(400), NO_CLASS), guidance, no_class=1)
    mean = -0.5 + guidance * (MEAN + 0.5)
    exact = ode(STARTS, 80, 0, mean=mean)
    assert (sample(sampler, two_gaussians) - exact).abs().max() < 1e-3 * STD
    model = guided_model(two_gaussians, guidance, no_class=1)
    sigma = torch.tensor([0.1, 2.0, 40.0], dtype=STARTS.dtype)
    posterior = mean + STD**2 / (STD**2 + sigma**2) * (STARTS - mean)
    torch.testing.assert_close(model(STARTS, sigma, NO_CLASS), posterior, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", SAMPLERS)
def test_watching_sees_every_evaluation_and_changes_nothing(name: str) -> None:
    evaluated: list[tuple[Tensor, Tensor]] = []
    watching: list[tuple[Tensor, Tensor]] = []

    def model(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        x_0 = gaussian(x, sigma, y)
        evaluated.append((x, x_0))
        return x_0

    unwatched = sample(build(name, STARTS, karras(9), noise=Streams(0, range(3))), gaussian)
    sampler = build(name, STARTS, karras(9), noise=Streams(0, range(3)))
    x_0 = sample(watched(sampler, lambda query, answer: watching.append((query.x, answer))), model)
    assert torch.equal(x_0, unwatched)
    assert all(a is c and b is d for (a, b), (c, d) in zip(evaluated, watching, strict=True))


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun", "dpmpp_2m"])
def test_every_diffusion_sampler_runs_on_an_energy(name: str) -> None:
    """By Tweedie's formula the energy of a Gaussian holds that Gaussian's denoiser."""

    def denoiser(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return MEAN + STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2) * (x - MEAN)

    def walk() -> Sampler:
        return sampler_named(name, 80 * starts(9), karras(12), labels(starts(9)), noise=drawing())

    torch.testing.assert_close(
        ended(denoised(walk()), gaussian_energy), sample(walk(), denoiser), rtol=1e-9, atol=1e-9
    )


def test_what_is_kept_is_kept_and_the_rest_is_as_it_would_be() -> None:
    """Pixels of this Gaussian know nothing of each other, so filling in half of them changes no other."""
    known = torch.full((4, 1, 2, 2), 0.25, dtype=torch.float64)
    keep = torch.tensor([[[True, False], [False, True]]])
    x_t = 80 * drawing()(known)

    def walk() -> Sampler:
        return ddim(x_t, karras(10), labels(known), eta=1.0, noise=drawing(5))

    filled, free = (
        ended(denoised(inpainted(walk(), known, keep)), gaussian_energy),
        ended(denoised(walk()), gaussian_energy),
    )
    assert (filled[:, :, keep[0]] == 0.25).all()
    torch.testing.assert_close(filled[:, :, ~keep[0]], free[:, :, ~keep[0]])


def test_a_step_that_is_run_again_starts_with_the_noise_of_its_own_level() -> None:
    """The oracle: of images that are all MEAN, x_t - MEAN is the noise, and its deviation the level."""
    sigmas, x_t = torch.tensor([2.0, 1.8, 1.5, 0.0]), starts(20_000)
    levels: list[tuple[float, float]] = []

    def solve(x_t: Tensor, step: Tensor) -> Sampler:
        return ddim(x_t, step, torch.zeros(len(x_t)), noise=drawing())

    def answer(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        levels.append((sigma[0].item(), (x - MEAN).std().item()))
        return torch.full_like(x, MEAN)

    x_0 = sample(resampled(solve, MEAN + 2 * x_t, sigmas, times=3, noise=drawing(7)), answer)
    assert [round(sigma, 6) for sigma, _ in levels] == [2.0] * 3 + [1.8] * 3 + [1.5] * 3
    for sigma, deviation in levels:
        assert deviation == pytest.approx(sigma, rel=4 / (2 * 20_000) ** 0.5)  # four standard errors
    assert torch.equal(x_0, torch.full_like(x_0, MEAN))
