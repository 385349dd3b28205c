"""The trained energies: gradients against finite differences, the denoiser inside, the double backward."""

from typing import Any

import pytest
import torch
from exact import MEAN, STD, drawing, ended, labels, starts
from torch import Tensor, nn

from genserve.models.denoiser import Denoiser, denoising_loss
from genserve.models.energy import EnergyDenoiser, ResidualEnergy
from genserve.models.unet import UNet
from genserve.sampling.langevin import langevin, slope
from genserve.sampling.samplers import Query
from genserve.sampling.wrappers import denoise


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


def test_the_gradient_is_what_finite_differences_say(trained: ResidualEnergy) -> None:
    x, sigma, y = points()
    gradient, h = slope(trained, x, sigma, y).gradient, 1e-5
    for k in range(0, 64, 7):
        step = torch.zeros(64, dtype=torch.float64)
        step[k] = h
        up, down = (trained(x + s * step.view(1, 1, 8, 8), sigma, y) for s in (1, -1))
        torch.testing.assert_close(gradient.flatten(1)[:, k], (up - down) / (2 * h), rtol=1e-6, atol=1e-6)


def test_an_image_has_the_gradient_that_it_has_alone(trained: ResidualEnergy) -> None:
    """The sum over the batch is differentiated, not the mean, and no layer couples its images."""
    x, sigma, y = points()
    together = slope(trained, x, sigma, y)
    for k in range(3):
        alone = slope(trained, x[k : k + 1], sigma[k : k + 1], y[k : k + 1])
        torch.testing.assert_close(together.gradient[k : k + 1], alone.gradient, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(together.energy[k : k + 1], alone.energy, rtol=1e-10, atol=1e-12)


def test_sampling_leaves_no_gradient_in_the_parameters_and_no_graph_behind(trained: ResidualEnergy) -> None:
    x, _, y = points()
    walk = langevin(x, 0.5, y, steps=3, step_size=0.01, noise=drawing())
    answer = slope(trained, *points())
    x_0 = ended(walk, trained)
    assert all(p.requires_grad and p.grad is None for p in trained.parameters())
    assert not any(t.requires_grad for t in (x, x_0, *answer))


def test_the_gradient_is_there_where_the_caller_has_switched_gradients_off(trained: ResidualEnergy) -> None:
    with torch.no_grad():
        quiet = slope(trained, *points())
    assert torch.equal(quiet.gradient, slope(trained, *points()).gradient)


def test_an_energy_denoiser_is_tweedies_formula(trained: ResidualEnergy) -> None:
    x, sigma, y = points()
    answer = slope(trained, x, sigma, y)
    by_hand = x - sigma.view(-1, 1, 1, 1) ** 2 * answer.gradient
    assert torch.equal(denoise(Query(x, sigma, y), answer), by_hand)
    torch.testing.assert_close(EnergyDenoiser(trained)(x, sigma, y), by_hand)


def test_the_loss_reaches_the_parameters_through_the_gradient(trained: ResidualEnergy) -> None:
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


def test_a_residual_energy_is_half_the_squared_noise_its_network_finds() -> None:
    """With the exact denoiser of N(MEAN, STD**2) as R, by hand."""

    class Exact(nn.Module):
        def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
            return MEAN + STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2) * (x - MEAN)

    x, sigma = starts(5), torch.full((5,), 0.8, dtype=torch.float64)
    answer = slope(ResidualEnergy(Exact()), x, sigma, labels(x))  # type: ignore[arg-type]
    noise = 0.8 / (STD**2 + 0.8**2) * (x - MEAN)  # (x - R) / sigma
    torch.testing.assert_close(answer.energy, noise.square().flatten() / 2)
    torch.testing.assert_close(answer.gradient, (0.8 / (STD**2 + 0.8**2)) ** 2 * (x - MEAN))


def test_a_teacher_takes_the_place_of_the_data() -> None:
    """The loss of a denoiser that agrees with its teacher is 0, whatever the data are."""
    x_0, sigma, y = points()
    half: Any = lambda x, sigma, y: x / 2  # noqa: E731
    eps = drawing(2)(x_0)
    assert denoising_loss(half, x_0, sigma, y, eps, 0.6, teacher=half).abs().max() == 0
    assert denoising_loss(half, x_0, sigma, y, eps, 0.6).min() > 0
