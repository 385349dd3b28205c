"""The autoencoder: a likelihood that sums to 1, a bound that lies below the truth, and queries row by row."""

import math

import pytest
import torch
from torch import Tensor

from genserve.models.vae import VAE, VaeConfig, log_likelihood
from genserve.runs.loading import torchscript

LEVELS = torch.arange(256).double() / 127.5 - 1
SMALL = {"channels": (4, 6), "hidden": 8, "couplings": 2, "coupling_hidden": 8}


def vae_of(z_dim: int, seed: int = 0) -> VAE:
    """Return a small autoencoder of 4 x 4 pixels and 3 classes with random weights."""
    torch.manual_seed(seed)
    net = VAE((1, 4, 4), 3, z_dim=z_dim, **SMALL)
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
    return net.eval().requires_grad_(False)


def of_every_level(location: float, log_scale: float) -> Tensor:
    """Return the log probability of each of the 256 levels."""
    full = torch.full((256, 1, 1, 1), 1.0, dtype=torch.float64)
    return log_likelihood(LEVELS.view(-1, 1, 1, 1), location * full, log_scale * full)


@pytest.mark.parametrize("location", [-3.0, -1.0, -0.2, 0.5, 0.999, 1.7])
@pytest.mark.parametrize("log_scale", [-6.0, -3.0, 0.0, 3.0])
def test_the_256_levels_sum_to_1(location: float, log_scale: float) -> None:
    assert of_every_level(location, log_scale).exp().sum().item() == pytest.approx(1, abs=1e-12)


def test_a_level_s_probability_is_a_difference_of_two_logistic_functions() -> None:
    location, scale = 0.1, math.exp(-1.5)
    above = torch.sigmoid((LEVELS + 1 / 255 - location) / scale)
    below = torch.sigmoid((LEVELS - 1 / 255 - location) / scale)
    above[-1], below[0] = 1, 0
    torch.testing.assert_close(of_every_level(location, -1.5), (above - below).log())


def test_far_from_its_location_a_pixel_still_pulls() -> None:
    """Where a plain difference of float32 is 0, the logarithm falls as the distance in scales grows."""
    location = torch.tensor([[[[-0.9]]]], requires_grad=True)
    x = torch.tensor([[[[0.6]]]])
    value = log_likelihood(x, location, torch.full_like(x, -4.0))
    value.sum().backward()
    distance = 1.5 * math.exp(4)
    assert value.item() == pytest.approx(-distance + math.log(2 / 255) + 4, abs=0.5)
    assert location.grad is not None
    assert location.grad.item() == pytest.approx(math.exp(4), rel=0.01)


def test_an_image_s_likelihood_is_the_sum_of_its_pixels() -> None:
    x, location = torch.rand(3, 2, 4, 4).mul(255).round() / 127.5 - 1, torch.randn(3, 2, 4, 4)
    log_scale = torch.randn(3, 2, 4, 4)
    single = [
        log_likelihood(*(t.reshape(-1, 1, 1, 1) for t in row)).sum()
        for row in zip(x, location, log_scale, strict=True)
    ]
    torch.testing.assert_close(log_likelihood(x, location, log_scale), torch.stack(single))


def test_the_bound_lies_below_the_likelihood_which_importance_weights_reach() -> None:
    """With two latent dimensions ln p(x | y) is an integral over the prior's noise, which a grid computes."""
    vae = vae_of(2).double()
    x, y = (torch.rand(1, 1, 4, 4).mul(255).round() / 127.5 - 1).double(), torch.tensor([1])
    one_hot = vae.one_hot(y).double()
    line = torch.linspace(-7, 7, 281, dtype=torch.float64)
    grid = torch.cartesian_prod(line, line)
    many = one_hot.expand(len(grid), -1)
    located = vae.decoder(vae.prior.inverse(grid, many), many)
    log_p = log_likelihood(x.expand(len(grid), -1, -1, -1), *(part.double() for part in located))
    log_area = 2 * math.log(14 / 280)
    weight = -0.5 * (grid.square().sum(1)) - math.log(2 * math.pi) + log_area
    truth = torch.logsumexp(log_p + weight, 0).item()

    k = 20_000
    rng = torch.Generator().manual_seed(0)
    eps = torch.randn(k, 2, generator=rng, dtype=torch.float64)
    mean, log_variance = (part.double() for part in vae.encoder(x, one_hot))
    z, rows = vae.sampled(mean, log_variance, eps), one_hot.expand(k, -1)
    nll = -log_likelihood(x.expand(k, -1, -1, -1), *(part.double() for part in vae.decoder(z, rows)))
    bound = -(nll + vae.divergence(z, log_variance, eps, rows))
    weighted = (torch.logsumexp(bound, 0) - math.log(k)).item()
    assert weighted == pytest.approx(truth, abs=0.05)
    assert bound.mean().item() < truth - 0.1


def test_the_bound_s_query_is_what_the_parts_say() -> None:
    vae = vae_of(4)
    x, y = torch.rand(5, 1, 4, 4).mul(255).round() / 127.5 - 1, torch.tensor([0, 1, 2, 2, 0])
    eps = torch.randn(5, 4)
    one_hot = vae.one_hot(y)
    mean, log_variance, _ = vae.encode(x, y)
    z = mean + eps * (log_variance / 2).exp()
    q = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(z).sum(1)
    noise, log_det = vae.prior(z, one_hot)
    p = torch.distributions.Normal(0.0, 1.0).log_prob(noise).sum(1) + log_det
    nll, divergence = vae.bound(x, y, eps)
    torch.testing.assert_close(nll, -log_likelihood(x, *vae.decoder(z, one_hot)))
    torch.testing.assert_close(divergence, q - p)


def test_the_noise_of_an_encoded_image_decodes_to_its_reconstruction() -> None:
    vae = vae_of(4)
    x, y = torch.rand(3, 1, 4, 4) * 2 - 1, torch.tensor([0, 1, 2])
    mean, _, noise = vae.encode(x, y)
    location, _ = vae.decoder(mean, vae.one_hot(y))
    torch.testing.assert_close(vae.decode(noise, y), location.clamp(-1, 1), rtol=1e-4, atol=1e-5)


def test_every_query_answers_row_by_row_and_alike_when_exported() -> None:
    vae = vae_of(4)
    x, y, eps = torch.rand(6, 1, 4, 4) * 2 - 1, torch.tensor([0, 1, 2, 2, 1, 0]), torch.randn(6, 4)
    with torchscript():
        scripted = torch.jit.script(vae)
    for query in ("decode", "encode", "bound", "forward"):
        arguments = {"decode": (eps, y), "forward": (eps, y), "encode": (x, y), "bound": (x, y, eps)}[query]
        together = getattr(vae, query)(*arguments)
        alone = getattr(vae, query)(*(part[3:4] for part in arguments))
        exported = getattr(scripted, query)(*arguments)
        if isinstance(together, Tensor):
            together, alone, exported = (together,), (alone,), (exported,)
        for a, b, c in zip(together, alone, exported, strict=True):
            torch.testing.assert_close(a[3:4], b, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


def test_the_class_changes_an_image_and_its_bound() -> None:
    vae, eps = vae_of(4), torch.randn(1, 4).expand(2, -1)
    x, y = torch.rand(1, 1, 4, 4).expand(2, -1, -1, -1), torch.tensor([0, 1])
    a, b = vae.decode(eps, y)
    assert (a - b).abs().max() > 1e-3
    for part in vae.bound(x, y, eps):
        assert (part[0] - part[1]).abs() > 1e-3


def test_a_model_without_classes_takes_0() -> None:
    vae = VaeConfig(family="vae", shape=(3, 8, 8), classes=(), net={"z_dim": 4, **SMALL}).build()
    assert vae.decode(torch.randn(2, 4), torch.zeros(2, dtype=torch.long)).shape == (2, 3, 8, 8)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"height and width must be multiples of 4, got 4 x 6"):
        VAE((1, 4, 6), 3)
    with pytest.raises(ValueError, match="even number of dimensions, got 5"):
        VAE((1, 4, 4), 3, z_dim=5, **SMALL)
