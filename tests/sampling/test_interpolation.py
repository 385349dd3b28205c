"""Noise between two seeds: exact at both ends, standard normal in between."""

import math

import pytest
import torch
from exact import gaussian
from torch import Tensor

from genserve.sampling.interpolation import Between
from genserve.sampling.noise import SEED_MAX, Streams
from genserve.sampling.samplers import sample
from genserve.sampling.settings import Setting
from genserve.sampling.solvers import SAMPLERS, TAKE_ETA

LIKE = torch.empty(5, 1, 4, 4)


def test_the_ends_are_the_draws_of_the_two_seeds_and_the_rest_lies_on_the_quarter_circle() -> None:
    noise, a, b = Between(3, 4, 7, 5), Streams(3, [7]), Streams(4, [7])
    for _ in range(3):  # the start noise and what is drawn afterwards
        eps, eps_a, eps_b = noise(LIKE), a(LIKE[:1]), b(LIKE[:1])
        assert torch.equal(eps[:1], eps_a)
        assert torch.equal(eps[-1:], eps_b)
        for k in (1, 2, 3):
            angle = k / 4 * math.pi / 2
            expected = math.cos(angle) * eps_a + math.sin(angle) * eps_b
            torch.testing.assert_close(eps[k : k + 1], expected)


def test_every_draw_is_standard_normal_and_new() -> None:
    n = 20_000
    noise, like = Between(0, 1, 0, 9), torch.empty(9, n)
    first, second = noise(like).double(), noise(like).double()
    for draw in (first, second):
        assert draw.mean(1).abs().max().item() < 5 / n**0.5
        assert (draw.square().mean(1) - 1).abs().max().item() < 5 * (2 / n) ** 0.5
        assert (draw.pow(4).mean(1) - 3).abs().max().item() < 5 * (96 / n) ** 0.5  # var of z**4 is 96
    assert (first * second).mean(1).abs().max().item() < 5 / n**0.5


def test_an_image_depends_on_its_place_and_not_on_how_many_there_are() -> None:
    few, many = Between(3, 4, 0, 3), Between(3, 4, 0, 9)
    for _ in range(2):
        assert torch.equal(few(LIKE[:3]), many(torch.empty(9, 1, 4, 4))[::4])


def test_between_a_seed_and_itself_all_images_are_one() -> None:
    noise, alone = Between(3, 3, 2, 5), Streams(3, [2])
    for _ in range(2):
        eps = noise(LIKE)
        assert torch.equal(eps, alone(LIKE[:1]).expand(5, 1, 4, 4))
        eps[0] = 0  # rows share no memory
        assert eps[1].abs().sum() > 0


def drawn(setting: Setting, noise: Between | Streams) -> Tensor:
    like = torch.empty(len(noise), 1, 4, 4)
    y = torch.zeros(len(noise), dtype=torch.long)
    sampler = setting.build(noise, like, y)
    return sample(sampler, lambda x, sigma, y: gaussian(x, sigma.view(-1, 1, 1, 1), y).tanh())


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_ends_are_the_plain_images_and_neighbours_are_near(name: str) -> None:
    """Whatever the sampler draws on its way."""
    eta = 0.7 if name in TAKE_ETA else 0.0
    setting = Setting(sampler=name, steps=6, eta=eta, sigma_min=0.05, sigma_max=20.0)
    x_0 = drawn(setting, Between(1, 2, 5, 17))
    assert torch.equal(x_0[:1], drawn(setting, Streams(1, [5])))
    assert torch.equal(x_0[-1:], drawn(setting, Streams(2, [5])))
    steps = x_0.diff(dim=0).square().mean((1, 2, 3)).sqrt()
    assert steps.max() < (x_0[0] - x_0[-1]).square().mean().sqrt() / 3
    assert steps.min() > 0


@pytest.mark.parametrize(
    ("seed", "seed_to", "index", "n"), [(0, 1, 0, 1), (0, SEED_MAX + 1, 0, 2), (0, 1, -1, 2)]
)
def test_what_is_out_of_range_is_refused(seed: int, seed_to: int, index: int, n: int) -> None:
    with pytest.raises(ValueError, match="must be"):
        Between(seed, seed_to, index, n)


def test_noise_for_another_number_of_images_is_refused() -> None:
    with pytest.raises(ValueError, match="5 images cannot fill a batch of 4"):
        Between(0, 1, 0, 5)(LIKE[:4])
