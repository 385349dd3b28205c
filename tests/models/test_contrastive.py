"""Contrastive divergence against derivatives by hand; the buffer keeps its chains."""

import pytest
import torch
from torch import Tensor, nn

from genserve.models.contrastive import ConvEnergy, ReplayBuffer, contrastive_loss
from genserve.sampling.langevin import mala, slope
from genserve.sampling.samplers import sample


class Spring(nn.Module):
    """E = (x - centre)**2 / 2 summed over pixels: N(centre, 1)."""

    def __init__(self, centre: float) -> None:
        super().__init__()
        self.centre = nn.Parameter(torch.tensor(centre, dtype=torch.float64))

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        e: Tensor = (x - self.centre).square().flatten(1).sum(1) / 2
        return e


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, mean: float = 0.0, seed: int = 0) -> Tensor:
    return mean + torch.randn(n, 1, 1, 1, generator=rng(seed), dtype=torch.float64)


def test_the_loss_is_the_gap_and_the_squared_energies() -> None:
    energy, data, negatives = Spring(0.3), normal(5), normal(7, 1.0, seed=1)
    loss, e_data, e_negative = contrastive_loss(energy, data, negatives, alpha=0.2)
    by_hand = [((x - 0.3) ** 2 / 2).flatten() for x in (data, negatives)]
    torch.testing.assert_close(e_data, by_hand[0])
    torch.testing.assert_close(e_negative, by_hand[1])
    gap = by_hand[0].mean() - by_hand[1].mean()
    torch.testing.assert_close(loss, gap + 0.2 * (by_hand[0].square().mean() + by_hand[1].square().mean()))


def test_its_gradient_is_that_of_the_likelihood() -> None:
    """d/dcentre of -log p(data) is mean(negatives) - mean(data), where the negatives are the model's own."""
    energy, data = Spring(0.0), normal(4000, 1.5)
    start = normal(4000, seed=2)
    noise_rng = rng(3)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=noise_rng, dtype=x.dtype)

    chain = mala(start, 1.0, torch.zeros(4000, dtype=torch.long), steps=20, step_size=0.3, noise=noise)
    negatives = sample(chain, lambda *query: slope(energy, *query))
    loss, *_ = contrastive_loss(energy, data, negatives, alpha=0.0)
    (gradient,) = torch.autograd.grad(loss, [energy.centre])
    assert gradient.item() == pytest.approx((negatives.mean() - data.mean()).item())
    assert gradient.item() == pytest.approx(-1.5, abs=4 * (2 / 4000) ** 0.5)


def test_descending_it_with_persistent_chains_finds_the_data() -> None:
    energy, buffer = Spring(0.0), ReplayBuffer(256, (1, 1, 1), rng())
    buffer.x = buffer.x.double()
    optimizer, draws = torch.optim.SGD(energy.parameters(), lr=0.1), rng(1)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=draws, dtype=x.dtype)

    for step in range(150):
        chosen, start = buffer.take(128, 0.05, draws)
        walk = mala(start, 1.0, torch.zeros(128, dtype=torch.long), steps=5, step_size=0.3, noise=noise)
        negatives = sample(walk, lambda *query: slope(energy, *query))
        buffer.put(chosen, negatives)
        loss, *_ = contrastive_loss(energy, normal(128, 1.5, seed=step), negatives, alpha=0.0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert energy.centre.item() == pytest.approx(1.5, abs=0.15)


def test_the_buffer_hands_out_different_chains_and_takes_them_back() -> None:
    buffer = ReplayBuffer(10, (1, 2, 2), rng())
    before = buffer.x.clone()
    chosen, x = buffer.take(6, 0.0, rng(1))
    assert len(set(chosen.tolist())) == 6
    assert torch.equal(x, before[chosen])
    buffer.put(chosen, torch.full_like(x, 9.0))
    assert (buffer.x == 9).all(dim=(1, 2, 3)).sum() == 6
    others = [k for k in range(10) if k not in chosen.tolist()]
    assert torch.equal(buffer.x[others], before[others])


def test_a_share_of_the_chains_starts_again_from_noise() -> None:
    buffer = ReplayBuffer(4000, (1, 1, 1), rng())
    buffer.put(torch.arange(4000), torch.full((4000, 1, 1, 1), 9.0))
    _, x = buffer.take(4000, 0.05, rng(1))
    fresh = x[x != 9]
    assert len(fresh) == pytest.approx(200, abs=4 * (4000 * 0.05 * 0.95) ** 0.5)
    assert -1 <= fresh.min() < -0.9 < 0.9 < fresh.max() <= 1
    assert (buffer.take(4000, 1.0, rng(2))[1] != 9).all()


def test_a_batch_larger_than_the_buffer_is_refused() -> None:
    with pytest.raises(ValueError, match="holds 10 chains, fewer than the 11"):
        ReplayBuffer(10, (1, 1, 1), rng()).take(11, 0.0, rng())


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8)])
def test_a_convolutional_energy_gives_each_image_its_own(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    energy = ConvEnergy(shape, channels=(8, 16, 16))
    x = torch.rand(4, *shape, generator=rng()) * 2 - 1
    sigma, y = torch.ones(4), torch.zeros(4, dtype=torch.long)
    together = slope(energy, x, sigma, y)
    assert together.energy.shape == (4,)
    for k in range(4):
        alone = slope(energy, x[k : k + 1], sigma[:1], y[:1])
        torch.testing.assert_close(alone.energy, together.energy[k : k + 1], rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(alone.gradient, together.gradient[k : k + 1], rtol=1e-3, atol=1e-6)


def test_it_sums_up_in_the_precision_of_the_picture() -> None:
    energy = ConvEnergy((1, 8, 8), channels=(8,)).bfloat16()
    assert energy(torch.zeros(2, 1, 8, 8), torch.ones(2), torch.zeros(2).long()).dtype == torch.float32
