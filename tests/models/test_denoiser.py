"""The trained denoiser against EDM's table, its loss and its noise levels against mathematics by hand."""

import math
import statistics

import pytest
import torch
from exact import MEAN, NO_CLASS, STD, gaussian
from torch import Tensor, nn

from genserve.models.denoiser import Denoiser, denoising_loss, training_sigmas
from genserve.sampling.noise import Noise


class Recorder(nn.Module):
    """Answers with one number everywhere and remembers what it was shown."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor, c_noise: Tensor, y: Tensor) -> Tensor:
        self.x, self.c_noise, self.y = x, c_noise, y
        return torch.full_like(x, self.answer)


@pytest.mark.parametrize("sigma", [0.002, 0.1, 1.0, 10.0, 80.0])
def test_the_network_sees_and_is_asked_for_unit_variance_at_every_level(sigma: float, noise: Noise) -> None:
    n = 20_000
    coin = torch.arange(n).remainder(2).double() * 2 - 1  # far from Gaussian, and of exactly this std
    x_0 = (MEAN + STD * coin).view(n, 1, 1, 1)
    eps = noise(x_0)
    level = torch.full((n,), sigma, dtype=torch.float64)
    x_t = x_0 + sigma * eps
    low, high = Recorder(0.0), Recorder(1.0)
    y = torch.arange(n)
    base = Denoiser(low, MEAN, STD)(x_t, level, y)
    c_out = Denoiser(high, MEAN, STD)(x_t, level, y) - base
    target = (x_0 - base) / c_out  # the F that would make D exact
    # the square of a coin plus a Gaussian varies less than a Gaussian's: sqrt(2 / n) is an upper bound
    assert target.var().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert target.mean().item() == pytest.approx(0, abs=4 / n**0.5)
    assert low.x.var().item() == pytest.approx(1, abs=4 * (2 / n) ** 0.5)
    assert low.x.mean().item() == pytest.approx(0, abs=4 / n**0.5)
    assert torch.allclose(low.c_noise, torch.tensor(math.log(sigma) / 4, dtype=torch.float64))
    assert torch.equal(low.y, y)


def test_the_weight_of_the_loss_makes_it_the_networks_own_squared_error(noise: Noise) -> None:
    """Whatever F answers, and at every level: lambda(sigma) |D - x_0|^2 = |F - target|^2."""
    x_0 = MEAN + STD * noise(torch.empty(6, 1, 4, 4, dtype=torch.float64))
    sigma = torch.logspace(-3, 2, 6, dtype=torch.float64)
    eps, y = noise(x_0), torch.zeros(6, dtype=torch.long)
    x_t = x_0 + sigma.view(-1, 1, 1, 1) * eps
    base = Denoiser(Recorder(0.0), MEAN, STD)(x_t, sigma, y)
    c_out = Denoiser(Recorder(1.0), MEAN, STD)(x_t, sigma, y) - base
    squared = (0.4 - (x_0 - base) / c_out).square().flatten(1).mean(1)
    loss = denoising_loss(Denoiser(Recorder(0.4), MEAN, STD), x_0, sigma, y, eps, STD)
    assert torch.allclose(loss, squared, rtol=1e-9)


def test_an_untrained_denoiser_is_the_exact_one_of_a_gaussian(noise: Noise) -> None:
    """A silent F leaves c_skip: the posterior mean if all one knew were mean and std."""
    sigma = torch.logspace(-3, 3, 20, dtype=torch.float64)
    x_t = noise(torch.empty(20, 1, 2, 2, dtype=torch.float64)) * sigma.view(-1, 1, 1, 1)
    silent_net = Denoiser(Recorder(0.0), MEAN, STD)(x_t, sigma, torch.zeros(20))
    assert torch.allclose(silent_net, gaussian(x_t, sigma.view(-1, 1, 1, 1), NO_CLASS), rtol=1e-12)


def test_a_denoiser_keeps_a_clean_image_and_forgets_a_drowned_one() -> None:
    """At sigma -> 0 D(x) -> x whatever F says; at large sigma D is within F's reach, STD, of the mean."""
    x, y = torch.rand(2, 3, 4, 4, dtype=torch.float64) * 2 - 1, torch.zeros(2)
    denoiser = Denoiser(Recorder(1.0), MEAN, STD)
    near, far = (denoiser(x, torch.full((2,), s, dtype=torch.float64), y) for s in (1e-8, 1e8))
    assert (near - x).abs().max() < 1e-7
    assert torch.allclose(far, torch.full_like(x, MEAN + STD), rtol=1e-7)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_denoiser_of_constant_data_is_refused(std: float) -> None:
    with pytest.raises(ValueError, match="std must be above 0"):
        Denoiser(nn.Identity(), 0.0, std)


@pytest.mark.parametrize("sigma", [0.01, 0.3, 5.0])
def test_the_exact_denoiser_has_a_loss_of_one_and_no_denoiser_more(sigma: float, noise: Noise) -> None:
    """Posterior variance STD^2 sigma^2 / (STD^2 + sigma^2) times the weight is 1; D = x errs by sigma^2."""
    n = 40_000
    x_0 = MEAN + STD * noise(torch.empty(n, 1, 1, 1, dtype=torch.float64))
    level, y, eps = torch.full((n,), sigma, dtype=torch.float64), torch.zeros(n), noise(x_0)

    def exact(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return gaussian(x_t, sigma.view(-1, 1, 1, 1), y)

    loss = denoising_loss(exact, x_0, level, y, eps, STD).mean().item()
    assert loss == pytest.approx(1, abs=4 * (2 / n) ** 0.5)  # each is chi squared with one degree of freedom
    loss = denoising_loss(lambda x, sigma, y: x, x_0, level, y, eps, STD).mean().item()
    assert loss == pytest.approx(1 + (sigma / STD) ** 2, rel=4 * (2 / n) ** 0.5)


def test_training_sigmas_are_log_normal_with_one_in_each_quantile(noise: Noise) -> None:
    u = torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    sigma = training_sigmas(u, 0.3, 1.4)
    normal = statistics.NormalDist(0.3, 1.4)
    quantiles = [64 * normal.cdf(math.log(s)) for s in sigma.tolist()]
    assert quantiles == pytest.approx((torch.arange(64) + u).tolist(), rel=1e-9)


def test_training_sigmas_are_finite_at_the_ends_of_the_unit_interval() -> None:
    ends = torch.tensor([0.0, math.nextafter(1.0, 0.0)])  # float32: the second rounds to 1
    for batch in (ends[:1], ends[1:], ends.repeat(64)):
        sigma = training_sigmas(batch, -1.2, 1.2)
        assert sigma.isfinite().all()
        assert (sigma > 0).all()
