"""Energies against mathematics done by hand: gradients, stationary distributions, the denoiser inside."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genserve.models.denoiser import Denoiser, denoising_loss
from genserve.models.energy import EnergyDenoiser, ResidualEnergy
from genserve.models.unet import UNet
from genserve.sampling.langevin import Energy, annealed, langevin, mala, slope
from genserve.sampling.samplers import Query, Sampler, ddim, heun, sample
from genserve.sampling.schedules import karras
from genserve.sampling.solvers import sampler_named
from genserve.sampling.wrappers import denoise, denoised, inpainted

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


def drawing(seed: int = 0) -> Callable[[Tensor], Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)


def silent(x: Tensor) -> Tensor:
    raise AssertionError("this sampler draws no noise")


def nobody(x: Tensor) -> Tensor:
    return torch.zeros(len(x), dtype=torch.long)


def starts(n: int = N) -> Tensor:
    return drawing(99)(torch.empty(n, 1, 1, 1, dtype=torch.float64))


def ended(sampler: Sampler, energy: Energy) -> Tensor:
    return sample(sampler, partial(slope, energy))


def counted(sampler: Sampler, energy: Energy) -> int:
    asked = []

    def model(*query: Tensor) -> Any:
        asked.append(query)
        return slope(energy, *query)

    sample(sampler, model)
    return len(asked)


@pytest.fixture(scope="module")
def trained() -> ResidualEnergy:
    """A residual energy of a small UNet in float64, with no weight at 0; attention would round to float32."""
    torch.manual_seed(0)
    net = UNet((1, 8, 8), 3, patch=1, channels=(16, 32), attention=())
    energy = ResidualEnergy(Denoiser(net, -0.5, 0.6)).double()
    for p in energy.parameters():
        nn.init.normal_(p, std=0.1)
    return energy


def points(n: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    noise = drawing(1)
    return (
        noise(torch.empty(n, 1, 8, 8, dtype=torch.float64)),
        torch.tensor([0.1, 1.0, 7.0])[:n].double(),
        torch.arange(n),
    )


# ---- the gradient ------------------------------------------------------------------------------------------


def test_the_gradient_is_what_finite_differences_say(trained: ResidualEnergy):
    x, sigma, y = points()
    gradient, h = slope(trained, x, sigma, y).gradient, 1e-5
    for k in range(0, 64, 7):
        step = torch.zeros(64, dtype=torch.float64)
        step[k] = h
        up, down = (trained(x + s * step.view(1, 1, 8, 8), sigma, y) for s in (1, -1))
        torch.testing.assert_close(gradient.flatten(1)[:, k], (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


def test_an_image_has_the_gradient_that_it_has_alone(trained: ResidualEnergy):
    """The sum over the batch is differentiated, not the mean, and no layer couples its images."""
    x, sigma, y = points()
    together = slope(trained, x, sigma, y)
    for k in range(3):
        alone = slope(trained, x[k : k + 1], sigma[k : k + 1], y[k : k + 1])
        torch.testing.assert_close(together.gradient[k : k + 1], alone.gradient, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(together.energy[k : k + 1], alone.energy, rtol=1e-10, atol=1e-12)


def test_sampling_leaves_no_gradient_in_the_parameters_and_no_graph_behind(trained: ResidualEnergy):
    x, _, y = points()
    walk = langevin(x, 0.5, y, steps=3, step_size=0.01, noise=drawing())
    seen = slope(trained, *points())
    x_0 = ended(walk, trained)
    assert all(p.requires_grad and p.grad is None for p in trained.parameters())
    assert not any(t.requires_grad for t in (x, x_0, *seen))


def test_the_gradient_is_there_where_the_caller_has_switched_gradients_off(trained: ResidualEnergy):
    with torch.no_grad():
        quiet = slope(trained, *points())
    assert torch.equal(quiet.gradient, slope(trained, *points()).gradient)


# ---- Langevin dynamics -------------------------------------------------------------------------------------


def test_ula_draws_the_gaussian_with_the_bias_of_its_step():
    """Its stationary variance is STD**2 / (1 - step / (2 STD**2)): 11 % too much at this step, 20 errors."""
    step = 0.2 * STD**2
    x = ended(langevin(starts(), 1.0, nobody(starts()), steps=200, step_size=step, noise=drawing()), plain)
    variance = STD**2 / (1 - step / (2 * STD**2))
    error = variance * math.sqrt(2 / N)
    assert x.mean().item() == pytest.approx(MEAN, abs=ERRORS * math.sqrt(variance / N))
    assert x.var().item() == pytest.approx(variance, abs=ERRORS * error)
    assert x.var().item() > STD**2 + 2 * ERRORS * error


def test_mala_is_exact_at_the_step_where_ula_is_biased():
    step = 0.2 * STD**2
    taken: list[Tensor] = []
    walk = mala(
        starts(), 1.0, nobody(starts()), steps=200, step_size=step, noise=drawing(), accepted=taken.append
    )
    x = ended(walk, plain)
    assert x.mean().item() == pytest.approx(MEAN, abs=ERRORS * STD / math.sqrt(N))
    assert x.var().item() == pytest.approx(STD**2, abs=ERRORS * STD**2 * math.sqrt(2 / N))
    share = torch.stack(taken[100:]).double().mean().item()
    assert 0.9 < share < 1  # it does refuse some
    assert len(taken) == 200


def test_mala_gives_two_wells_their_weights():
    """From starts that are all in the wrong one."""
    walk = mala(-1 + 0.0 * starts(), 1.0, nobody(starts()), steps=600, step_size=0.15, noise=drawing())
    right = (ended(walk, wells) > 0).double().mean().item()
    low, high = (0.5 * math.erfc(-z / math.sqrt(2)) for z in (-2.0, 2.0))  # of a Gaussian two widths off
    expected = 0.3 * low + 0.7 * high
    assert right == pytest.approx(expected, abs=ERRORS * math.sqrt(expected * (1 - expected) / N))


def test_langevin_in_two_wells_is_right_up_to_its_step():
    walk = langevin(starts(), 1.0, nobody(starts()), steps=3000, step_size=0.005, noise=drawing())
    x = ended(walk, wells)
    assert x.mean().item() == pytest.approx(0.4, abs=ERRORS * math.sqrt(1.09 / N) + 0.01)
    assert x.var().item() == pytest.approx(0.25 + 0.84, rel=0.03)


def test_annealed_langevin_draws_the_gaussian_from_wide_noise():
    sigmas = karras(200, 0.01, 20.0)
    few: dict[str, Any] = {"step_size": 0.2, "noise_std": math.sqrt(0.4), "steps": 10, "noise": drawing()}
    walk = annealed(20 * starts(), sigmas, nobody(starts()), **few)
    x = ended(walk, gaussian)
    assert x.mean().item() == pytest.approx(MEAN, abs=ERRORS * STD / math.sqrt(N) + 0.01)
    assert x.std().item() == pytest.approx(STD, rel=0.03)


@pytest.mark.parametrize("step_size", [0.3, 1.0, 1.3])
def test_consistent_noise_is_that_of_every_level(step_size: float):
    """Of one point with noise of sigma all the noise is known: after each step, that of the next level."""

    def point(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return ((x - MEAN).square() / (2 * sigma.view(-1, 1, 1, 1) ** 2)).flatten(1).sum(1)

    x, levels = 20 * starts() + MEAN, []

    def model(x: Tensor, sigma: Tensor, y: Tensor) -> Any:
        levels.append(((x - MEAN).std() / sigma[0]).item())
        return slope(point, x, sigma, y)

    x_0 = sample(
        annealed(x, karras(9, 0.01, 20.0), nobody(x), step_size=step_size, steps=2, noise=drawing()), model
    )
    assert levels == pytest.approx([1.0] * 19, rel=ERRORS / math.sqrt(2 * N))
    torch.testing.assert_close(x_0, torch.full_like(x_0, MEAN))


def test_without_noise_langevin_descends_to_the_mean_and_draws_none():
    walk = langevin(starts(50), 1.0, nobody(starts(50)), steps=100, step_size=0.1, noise_std=0, noise=silent)
    torch.testing.assert_close(ended(walk, plain), torch.full((50, 1, 1, 1), MEAN).double())


def test_clamps_hold_the_gradient_and_the_value():
    far = torch.full((1, 1, 1, 1), 5.0)
    limits: dict[str, Any] = {"steps": 1, "step_size": 0.5, "noise_std": 0.0, "noise": silent}
    held = ended(langevin(far, 1.0, nobody(far), gradient_max=0.2, **limits), plain)
    assert held.item() == pytest.approx(5 - 0.5 * 0.2)
    inside = partial(torch.clamp, min=-1, max=1)
    assert (
        ended(langevin(far, 1.0, nobody(far), gradient_max=0.2, inside=inside, **limits), plain).item() == 1
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
def test_a_sampler_asks_as_often_as_it_says(build: Callable[[Tensor, Tensor], Sampler], nfe: int):
    x = starts(2)
    assert counted(build(x, nobody(x)), gaussian) == nfe


# ---- the denoiser in an energy -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ddim", "ddpm", "heun", "dpmpp_2m"])
def test_every_diffusion_sampler_runs_on_an_energy(name: str):
    """By Tweedie's formula the energy of a Gaussian holds that Gaussian's denoiser."""

    def denoiser(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return MEAN + STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2) * (x - MEAN)

    def walk() -> Sampler:
        return sampler_named(name, 80 * starts(9), karras(12), nobody(starts(9)), noise=drawing())

    torch.testing.assert_close(
        ended(denoised(walk()), gaussian), sample(walk(), denoiser), rtol=1e-9, atol=1e-9
    )


def test_an_energy_denoiser_is_tweedies_formula(trained: ResidualEnergy):
    x, sigma, y = points()
    seen = slope(trained, x, sigma, y)
    by_hand = x - sigma.view(-1, 1, 1, 1) ** 2 * seen.gradient
    assert torch.equal(denoise(Query(x, sigma, y), seen), by_hand)
    torch.testing.assert_close(EnergyDenoiser(trained)(x, sigma, y), by_hand)


def test_the_loss_reaches_the_parameters_through_the_gradient(trained: ResidualEnergy):
    """Double backward against finite differences, in one weight of each kind of layer."""
    x_0, sigma, y = points()
    eps = drawing(2)(x_0)

    def loss() -> Tensor:
        return denoising_loss(EnergyDenoiser(trained), x_0, sigma, y, eps, 0.6).mean()

    names = ["conv_in.weight", "embed_class.weight", "down.0.0.block.norm_2.weight", "conv_out.weight"]
    weights = [trained.residual.net.get_parameter(name) for name in names]
    gradients = torch.autograd.grad(loss(), weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        flat, k, h = weight.data.view(-1), gradient.abs().argmax(), 1e-6
        value = flat[k].item()
        flat[k] = value + h
        up = loss().item()
        flat[k] = value - h
        down = loss().item()
        flat[k] = value
        assert gradient.view(-1)[k].item() == pytest.approx((up - down) / (2 * h), rel=1e-4)


def test_a_residual_energy_is_half_the_squared_noise_its_network_finds():
    """With the exact denoiser of N(MEAN, STD**2) as R, by hand."""

    class Exact(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
            return MEAN + STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2) * (x - MEAN)

    x, sigma = starts(5), torch.full((5,), 0.8, dtype=torch.float64)
    seen = slope(ResidualEnergy(Exact()), x, sigma, nobody(x))  # type: ignore[arg-type]
    noise = 0.8 / (STD**2 + 0.8**2) * (x - MEAN)  # (x - R) / sigma
    torch.testing.assert_close(seen.energy, noise.square().flatten() / 2)
    torch.testing.assert_close(seen.gradient, (0.8 / (STD**2 + 0.8**2)) ** 2 * (x - MEAN))


def test_a_teacher_takes_the_place_of_the_data():
    """The loss of a denoiser that agrees with its teacher is 0, whatever the data are."""
    x_0, sigma, y = points()
    half: Any = lambda x, sigma, y: x / 2  # noqa: E731
    eps = drawing(2)(x_0)
    assert denoising_loss(half, x_0, sigma, y, eps, 0.6, teacher=half).abs().max() == 0
    assert denoising_loss(half, x_0, sigma, y, eps, 0.6).min() > 0


def test_what_is_kept_is_kept_and_the_rest_is_as_it_would_be():
    """Pixels of this Gaussian know nothing of each other, so filling in half of them changes no other."""
    known = torch.full((4, 1, 2, 2), 0.25, dtype=torch.float64)
    keep = torch.tensor([[[True, False], [False, True]]])
    x_t = 80 * drawing()(known)

    def walk() -> Sampler:
        return ddim(x_t, karras(10), nobody(known), eta=1.0, noise=drawing(5))

    filled, free = (
        ended(denoised(inpainted(walk(), known, keep)), gaussian),
        ended(denoised(walk()), gaussian),
    )
    assert (filled[:, :, keep[0]] == 0.25).all()
    torch.testing.assert_close(filled[:, :, ~keep[0]], free[:, :, ~keep[0]])
