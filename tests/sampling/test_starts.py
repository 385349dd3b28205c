"""Settings that start from a picture: SDEdit and inpainting against what Gaussians make of them by hand."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from exact import MEAN, STD, drawing, gaussian, two_gaussians
from torch import Tensor

from genserve import images
from genserve.sampling.defaults import BadSetting, Defaults
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import Query, sample
from genserve.sampling.schedules import Tuned
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import SAMPLERS, TAKE_ETA

RANGE: dict[str, float] = {"sigma_min": 0.01, "sigma_max": 20.0}
PICTURE = torch.linspace(-1, 1, 256).view(1, 1, 16, 16)  # nearly every gray
LEFT = torch.arange(16).expand(1, 16, 16) < 8


def wide(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """The exact denoiser of two classes of gray Gaussian pixels, for images."""
    return two_gaussians(x, sigma.view(-1, 1, 1, 1), y.view(-1, 1, 1, 1))


def setting(name: str, steps: int = 6, **more: Any) -> Setting:
    eta = 0.7 if name in TAKE_ETA else 0.0
    fields: dict[str, Any] = {"sampler": name, "steps": steps, "eta": eta} | RANGE | more
    return Setting(**fields)


def drawn(setting: Setting, indices: list[int], *, plain: bool = False, keep: Tensor | None = None) -> Tensor:
    start = PICTURE.expand(len(indices), 1, 16, 16)
    y = torch.zeros(len(indices), dtype=torch.long)
    noise = Streams(3, indices)
    return sample(setting.build(noise, start, y, no_class=1, start=None if plain else start, keep=keep), wide)


# ---- from a picture and noise ------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [0.2, 0.5, 0.9])
def test_sdedit_of_a_gaussian_is_its_closed_form(strength: float) -> None:
    """x_t is N(x_0, sigma**2), and each DDIM step scales x - MEAN by a known factor."""
    n, steps = 20_000, 10
    plain, given = setting("ddim", steps, eta=0.0), setting("ddim", steps, eta=0.0, strength=strength)
    sigmas = plain.sigmas[steps - round(strength * steps) :].tolist()
    factor = math.prod((STD**2 + high * low) / (STD**2 + high**2) for high, low in pairwise(sigmas))
    start = torch.full((n, 1, 1, 1), 0.1, dtype=torch.float64)
    sampler = given.build(drawing(), start, torch.zeros(n, dtype=torch.long), start=start)
    x_0 = sample(sampler, lambda x, sigma, y: gaussian(x, sigma.view(-1, 1, 1, 1), y))
    by_hand = MEAN + factor * (start + sigmas[0] * drawing()(start) - MEAN)
    torch.testing.assert_close(x_0, by_hand, rtol=1e-9, atol=1e-9)
    std = factor * sigmas[0]
    assert x_0.mean().item() == pytest.approx(MEAN + factor * (0.1 - MEAN), abs=4 * std / n**0.5)
    assert x_0.std().item() == pytest.approx(std, rel=4 / (2 * n) ** 0.5)


@pytest.mark.parametrize(
    ("strength", "steps", "run"),
    [(0.6, 50, 30), (0.29, 100, 29), (0.01, 10, 1), (0.99, 10, 10), (1.0, 10, 10), (0.5, 1, 1)],
)
def test_strength_is_the_share_of_the_steps_that_is_run(strength: float, steps: int, run: int) -> None:
    full, part = setting("ddim", steps), setting("ddim", steps, strength=strength)
    assert part.sigmas.tolist() == full.sigmas.tolist()[-run - 1 :]
    assert part.nfe == part.steps_run == run


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_first_query_is_the_picture_with_noise_of_the_first_level_left(name: str) -> None:
    given = setting(name, strength=0.5)
    first: Query = next(
        given.build(Streams(3, [7]), PICTURE, torch.zeros(1, dtype=torch.long), start=PICTURE)
    )
    assert first.sigma.item() == pytest.approx(given.sigmas[0].item())
    torch.testing.assert_close(first.x, PICTURE + first.sigma * Streams(3, [7])(PICTURE))


def test_tuned_levels_are_run_from_the_middle_as_well() -> None:
    tuned = (Tuned(sampler="consistency", sigmas=(15.0, 4.0, 0.5)),)
    given = setting("consistency", 3, schedule="tuned", tuned=tuned, strength=0.6)
    assert given.sigmas.tolist() == [4.0, 0.5, 0.0]


@pytest.mark.parametrize("name", SAMPLERS)
def test_at_strength_1_nothing_of_the_picture_is_left(name: str) -> None:
    assert torch.equal(drawn(setting(name, strength=1.0), [0, 1]), drawn(setting(name), [0, 1], plain=True))


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun", "dpmpp_2m"])
def test_less_strength_stays_nearer_to_the_picture(name: str) -> None:
    distances = [
        (drawn(setting(name, 10, strength=strength), [0, 1, 2]) - PICTURE).square().mean().item()
        for strength in (0.1, 0.4, 0.7, 1.0)
    ]
    assert distances == sorted(distances)
    assert distances[0] < distances[-1] / 4


# ---- pixels that are kept ----------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"strength": 0.5}, {"resample": 3}, {"guidance": 2.0}])
@pytest.mark.parametrize("name", SAMPLERS)
def test_kept_pixels_come_out_as_they_went_in(name: str, more: dict[str, Any]) -> None:
    """Every one of 256 grays, and the rest is drawn."""
    result = images.to_pixels(drawn(setting(name, **more), [0, 1], keep=LEFT))
    sent = images.to_pixels(PICTURE)
    for image in result:
        assert (image[:, :8] == sent[0, :, :8]).all()
        assert (image[:, 8:] != sent[0, :, 8:]).mean() > 0.9


RHO, SPREAD, KNOWN = 0.9, 0.5, 0.6


def pair(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """E[x_0 | x_t] of two pixels of mean 0, standard deviation SPREAD and correlation RHO."""
    covariance = SPREAD**2 * torch.tensor([[1, RHO], [RHO, 1]], dtype=torch.float64)
    gain = covariance @ torch.linalg.inv(covariance + sigma[0] ** 2 * torch.eye(2, dtype=torch.float64))
    return (x.flatten(1) @ gain.T).view_as(x)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun", "dpmpp_2m"])
def test_resampling_brings_the_filled_pixel_to_its_conditional_distribution(name: str) -> None:
    """One of two correlated pixels is known: the other is N(RHO KNOWN, SPREAD**2 (1 - RHO**2)), by hand."""
    n = 5_000
    start = torch.zeros(n, 1, 1, 2, dtype=torch.float64)
    start[..., 0] = KNOWN
    keep = torch.tensor([[[True, False]]])
    std = SPREAD * math.sqrt(1 - RHO**2)

    def bias(times: int) -> float:
        """Return how many standard deviations the mean is off."""
        y = torch.zeros(n, dtype=torch.long)
        sampler = setting(name, 20, resample=times).build(drawing(), start, y, start=start, keep=keep)
        filled = sample(sampler, pair)[..., 1]
        return abs(filled.mean().item() - RHO * KNOWN) / std

    plain, twice, often = bias(1), bias(2), bias(16)
    assert plain > 0.9  # the seam of plain replacement
    assert twice < 0.75 * plain
    assert often < 0.15


def test_filling_a_pixel_that_knows_nothing_of_the_others_needs_no_resampling() -> None:
    """The pixels of this Gaussian are independent: the free ones have their own distribution either way."""
    free = drawn(setting("ddpm", 20), list(range(50)), keep=LEFT)[..., 8:]
    again = drawn(setting("ddpm", 20, resample=3), list(range(50)), keep=LEFT)[..., 8:]
    error = STD / (50 * 128) ** 0.5
    for filled in (free, again):
        assert filled.mean().item() == pytest.approx(MEAN, abs=5 * error)


# ---- costs, seeds, refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"strength": 0.5}, {"resample": 3}, {"strength": 0.4, "resample": 2}])
@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_cost_is_known_before(name: str, guidance: float, more: dict[str, Any]) -> None:
    given, evaluated = setting(name, 5, guidance=guidance, **more), 0

    def counting(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        nonlocal evaluated
        evaluated += len(x)
        return wide(x, sigma, y)

    y = torch.zeros(1, dtype=torch.long)
    sample(given.build(Streams(0, [0]), PICTURE, y, no_class=1, start=PICTURE, keep=LEFT), counting)
    assert evaluated == given.nfe


@pytest.mark.parametrize(
    ("more", "keep"), [({"strength": 0.5}, None), ({"resample": 3}, LEFT), ({"strength": 0.7}, LEFT)]
)
@pytest.mark.parametrize("name", SAMPLERS)
def test_an_image_is_the_same_alone_and_in_a_crowd(
    name: str, more: dict[str, Any], keep: Tensor | None
) -> None:
    crowd = drawn(setting(name, **more), [0, 1, 2, 3], keep=keep)
    assert torch.equal(crowd[2:3], drawn(setting(name, **more), [2], keep=keep))
    assert not torch.equal(crowd[2], crowd[1])


@pytest.mark.parametrize("more", [{"strength": 0.0}, {"strength": 1.1}, {"resample": 0}])
def test_what_is_out_of_range_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(BadSetting) as refused:
        setting("ddim", **more)
    assert refused.value.field == next(iter(more))


@pytest.mark.parametrize(
    ("given", "start", "keep", "message"),
    [
        ({"strength": 0.5}, None, None, "need pictures"),
        ({}, None, LEFT, "need pictures"),
        ({"resample": 2}, PICTURE, None, "needs pixels to keep"),
    ],
)
def test_what_has_nothing_to_start_from_is_refused(
    given: dict[str, Any], start: Tensor | None, keep: Tensor | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        setting("ddim", **given).build(
            Streams(0, [0]), PICTURE, torch.zeros(1, dtype=torch.long), start=start, keep=keep
        )


@pytest.mark.parametrize(
    ("samplers", "sigma_min", "given", "field"),
    [
        (("langevin", "mala"), 20.0, {"strength": 0.5}, "strength"),
        (("langevin", "mala"), 20.0, {"resample": 2}, "resample"),
        (("langevin", "ddim"), 0.01, {"resample": 2}, "resample"),
    ],
)
def test_langevin_dynamics_refuse_what_they_cannot_do(
    samplers: tuple[str, ...], sigma_min: float, given: dict[str, Any], field: str
) -> None:
    defaults = Defaults(samplers=samplers, sampler="langevin", steps=5, sigma_min=sigma_min, sigma_max=20.0)
    with pytest.raises(BadSetting) as refused:
        Setting.of(defaults, **given)
    assert refused.value.field == field
