"""The bound of an autoencoder over many images."""

import math

import pytest
import torch

from genserve.images import normalise
from genserve.measure.bound import bound_of
from genserve.models.vae import VAE


@pytest.fixture
def vae() -> VAE:
    torch.manual_seed(0)
    net = VAE((1, 4, 4), 3, z_dim=4, channels=(4, 4), hidden=8, couplings=2, coupling_hidden=8)
    return net.eval().requires_grad_(False)


def test_the_bound_is_the_mean_over_images_in_any_parts(vae: VAE) -> None:
    """700 images are more than are taken at once, and the last part is a smaller one."""
    rng = torch.Generator().manual_seed(1)
    x, y = torch.randint(256, (700, 1, 4, 4), dtype=torch.uint8), torch.arange(700) % 3
    bound = bound_of(vae, x, y, rng)
    rng.manual_seed(1)
    eps = torch.cat([torch.randn(500, 4, generator=rng), torch.randn(200, 4, generator=rng)])
    nll, kl = (part.mean().item() for part in vae.bound(normalise(x), y, eps))
    assert bound.reconstruction == pytest.approx(nll, rel=1e-5)
    assert bound.kl == pytest.approx(kl, rel=1e-4, abs=1e-5)
    assert bound.bits_per_dim == pytest.approx((nll + kl) / 16 / math.log(2), rel=1e-5)


def test_a_model_that_knows_one_picture_needs_few_bits_for_it(vae: VAE) -> None:
    """A decoder that says level 100 everywhere, and is as sure of it as it can be."""
    vae.decoder.out.weight.zero_()
    vae.decoder.out.bias.copy_(torch.tensor([100 / 127.5 - 1] * 4 + [-6.0] * 4))
    rng = torch.Generator().manual_seed(0)
    known, other = (torch.full((5, 1, 4, 4), level, dtype=torch.uint8) for level in (100, 101))
    y = torch.zeros(5, dtype=torch.long)
    half_width = math.exp(6) / 255
    expected = -16 * math.log(math.tanh(half_width / 2))  # a logistic has tanh(w / 2) within w scales
    assert bound_of(vae, known, y, rng).reconstruction == pytest.approx(expected, rel=1e-3)
    assert bound_of(vae, other, y, rng).reconstruction > 10
