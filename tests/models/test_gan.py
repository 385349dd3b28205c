"""The GAN's networks: what the class does, what couples images and what must not, and the penalty R1."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genserve.models.gan import (
    ConditionalNorm,
    Discriminator,
    GanConfig,
    Generator,
    r1_penalty,
    settle,
    spread,
)
from genserve.runs.loading import torchscript

SHAPE = (1, 8, 8)


@pytest.fixture
def generator() -> Generator:
    """A small generator with random norms and statistics, in evaluation mode."""
    torch.manual_seed(0)
    net = Generator(SHAPE, 3, z_dim=4, channels=(8, 6))
    with torch.no_grad():
        for p in net.parameters():
            p += 0.1 * torch.randn_like(p)
    settle(net, 3, torch.Generator().manual_seed(1), batches=2, size=30)
    return net.eval()


def test_a_drawn_image_does_not_depend_on_its_neighbours(generator: Generator) -> None:
    z, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    together = generator(z, y)
    assert together.shape == (6, *SHAPE)
    assert together.abs().max() <= 1
    torch.testing.assert_close(generator(z[2:3], y[2:3]), together[2:3], rtol=1e-5, atol=1e-6)
    z[:2] = 50
    torch.testing.assert_close(generator(z, y)[2:], together[2:], rtol=1e-5, atol=1e-6)


def test_noise_and_class_both_change_the_image(generator: Generator) -> None:
    z = torch.randn(1, 4)
    x = generator(z.expand(3, -1), torch.arange(3))
    assert (x[0] - x[1]).abs().max() > 0.01
    assert (generator(z + 1, torch.tensor([0])) - x[:1]).abs().max() > 0.01


def test_the_exported_generator_answers_alike(generator: Generator) -> None:
    z, y = torch.randn(5, 4), torch.tensor([2, 1, 0, 0, 1])
    with torchscript():
        scripted = torch.jit.script(generator)
    for _ in range(3):
        torch.testing.assert_close(scripted(z, y), generator(z, y), rtol=1e-5, atol=1e-6)


def test_a_conditional_norm_starts_as_batch_norm_and_then_scales_and_moves() -> None:
    norm, x, h = ConditionalNorm(4, 3), torch.randn(6, 4, 5, 5), torch.randn(6, 3)
    plain = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(norm(x, h), plain)
    norm.scale_shift.bias.data = torch.arange(8.0)
    scale, shift = torch.arange(1.0, 5).view(4, 1, 1), torch.arange(4.0, 8).view(4, 1, 1)
    torch.testing.assert_close(norm(x, h), plain * scale + shift)


def test_settled_statistics_are_those_of_the_weights(generator: Generator) -> None:
    """What the first norm subtracts and divides by is of what reaches it, over all batches."""
    rng = torch.Generator().manual_seed(7)
    settle(generator, 3, rng, batches=3, size=12)
    assert not generator.training
    rng.manual_seed(7)
    z = torch.cat([torch.randn(12, 4, generator=rng) for _ in range(3)])
    y = (torch.arange(12) % 3).repeat(3)
    h = generator.start(torch.cat([z, generator.embed(y)], dim=1)).view(36, 2, 2, 8)
    batches = h.view(3, 12 * 4, 8)
    norm = generator.norm_1.norm
    torch.testing.assert_close(norm.running_mean, batches.mean((0, 1)))
    torch.testing.assert_close(norm.running_var, batches.var(1).mean(0))
    assert norm.momentum == 0.1


def test_the_penalty_is_the_squared_gradient_of_each_image() -> None:
    """For D = sum w x**2 / 2 the gradient is w x, and that of the penalty by w is 2 w x**2."""
    w = torch.rand(1, 2, 2, requires_grad=True)
    x = torch.randn(5, 1, 2, 2)

    def quadratic(x: Tensor, y: Tensor) -> Tensor:
        return (w * x.square() / 2).flatten(1).sum(1)

    penalty = r1_penalty(quadratic, x, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(penalty, (w * x).square().flatten(1).sum(1))
    penalty.sum().backward()
    torch.testing.assert_close(w.grad, (2 * w * x.square()).sum(0))


def test_spread_is_the_mean_deviation_inside_a_group_of_neighbours() -> None:
    h = torch.randn(8, 5)
    expected = [h[k : k + 4].std(0, unbiased=False).mean() for k in (0, 4)]
    torch.testing.assert_close(spread(h, 4)[:, 0], torch.stack(expected).repeat_interleave(4))
    assert spread(torch.ones(8, 5), 4).max() < 1e-3


def test_a_discriminator_couples_images_of_one_group_alone() -> None:
    torch.manual_seed(0)
    critic = Discriminator(SHAPE, 3, channels=(4, 8), hidden=6, group=2)
    x, y = torch.rand(4, *SHAPE) * 2 - 1, torch.tensor([0, 1, 2, 0])
    before = critic(x, y)
    assert before.shape == (4,)
    x[2] = -x[2]
    after = critic(x, y)
    torch.testing.assert_close(after[:2], before[:2])
    assert (after[2:] != before[2:]).all()  # the third image, and its neighbour through the spread


def test_a_discriminator_s_class_enters_by_projection() -> None:
    critic = Discriminator(SHAPE, 3, channels=(4, 8), hidden=6, group=2)
    x = torch.rand(1, *SHAPE).expand(4, -1, -1, -1)
    critic.embed.weight.data[1] = 0
    a, none, _, _ = critic(x, torch.tensor([0, 1, 2, 2])).tolist()
    critic.embed.weight.data[0] *= 3
    assert critic(x, torch.tensor([0, 1, 2, 2]))[0].item() == pytest.approx(none + 3 * (a - none), rel=1e-4)


def test_a_model_without_classes_takes_0() -> None:
    net = GanConfig(family="gan", shape=SHAPE, classes=(), net={"z_dim": 4, "channels": (4, 4)}).build()
    assert net(torch.randn(2, 4), torch.zeros(2, dtype=torch.long)).shape == (2, *SHAPE)


@pytest.mark.parametrize("network", [Generator, Discriminator])
def test_sides_that_do_not_fold_are_refused(network: type) -> None:
    with pytest.raises(ValueError, match=r"height and width must be multiples of 4, got 30 x 28"):
        network((1, 30, 28), 10)
