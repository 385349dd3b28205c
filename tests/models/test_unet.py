"""The UNet runs attention at its resolutions, starts silent, keeps images apart, and survives TorchScript."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from genserve.models.denoiser import Denoiser
from genserve.models.unet import Attention, UNet


def awake(net: nn.Module) -> nn.Module:
    """Give every weight a value, so that no branch is silent as at the start of training."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(std=0.2, generator=generator)
    return net


def inputs(n: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    """Return n different images, noise levels and classes of three."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 1, 8, 8, generator=generator, dtype=dtype)
    return x, torch.rand(n, generator=generator, dtype=dtype) + 0.1, torch.arange(n) % 3


def small(**settings: Any) -> UNet:
    defaults = {"patch": 1, "channels": (16, 32), "attention": (4,), "heads": 2}
    return UNet((1, 8, 8), 3, **defaults | settings)


@pytest.mark.parametrize(
    ("patch", "channels", "attention", "blocks", "runs"),
    [
        (1, (16, 32), (4,), 1, {4: 3}),  # one on the way down, one in the middle, one on the way up
        (1, (16, 32), (8,), 2, {8: 4}),  # two each way; the middle is at the lowest resolution only
        (2, (16, 32), (4, 2), 1, {4: 2, 2: 3}),  # a patch of 2 halves the resolution first
        (2, (16,), (), 1, {}),
    ],
)
def test_attention_runs_at_the_given_resolutions(
    patch: int, channels: tuple[int, ...], attention: tuple[int, ...], blocks: int, runs: dict[int, int]
) -> None:
    net = small(patch=patch, channels=channels, attention=attention, blocks=blocks)
    heights: list[int] = []
    for module in net.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(lambda _, args, __: heights.append(args[0].shape[-1]))
    x, c_noise, y = inputs(2, dtype=torch.float32)
    net(x, c_noise, y)
    assert {height: heights.count(height) for height in heights} == runs


def test_attention_is_the_softmax_average_of_the_values() -> None:
    """One head written out with loops, against the module; its own norm and projections taken as given."""
    torch.manual_seed(0)
    attention = awake(Attention(4, 2)).double()
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    q, k, v = attention.qkv(attention.norm(x)).flatten(2)[0].chunk(3)  # each (4, 4 positions)
    mixed = torch.empty(4, 4, dtype=torch.float64)
    for head in range(2):
        rows = slice(2 * head, 2 * head + 2)
        for i in range(4):
            scores = torch.stack([(q[rows, i] * k[rows, j]).sum() / 2**0.5 for j in range(4)])
            share = scores.exp() / scores.exp().sum()
            mixed[rows, i] = sum(share[j] * v[rows, j] for j in range(4))
    by_hand = x + attention.out(mixed.view(1, 4, 2, 2))
    assert torch.allclose(attention(x), by_hand, atol=1e-6)  # the module takes its softmax in float32


def test_a_new_network_answers_zero() -> None:
    """An untrained denoiser is then the best guess from mean and std alone (test_denoiser)."""
    assert (small()(*inputs(4, dtype=torch.float32)) == 0).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("patch", [1, 2])
def test_images_of_a_batch_do_not_influence_each_other(patch: int, training: bool) -> None:
    net = awake(small(patch=patch, attention=(4 // patch,))).double().train(training)
    x, c_noise, y = inputs(4)
    together = net(x.requires_grad_(), c_noise, y)
    (gradient,) = torch.autograd.grad(together[2].square().sum(), x)
    assert (gradient[2] != 0).all()
    assert (gradient[[0, 1, 3]] == 0).all()
    for k in range(4):
        alone = net(x[k : k + 1], c_noise[k : k + 1], y[k : k + 1])
        assert torch.allclose(alone[0], together[k], rtol=1e-5, atol=1e-5)  # attention is float32


def test_class_and_noise_level_reach_every_pixel() -> None:
    net = awake(small())
    x, c_noise, y = inputs(1, dtype=torch.float32)
    answer = net(x, c_noise, y)
    for other in (net(x, c_noise + 0.1, y), *(net(x, c_noise, y + k) for k in (1, 2, 3))):
        assert (other != answer).all()
    with pytest.raises(IndexError):
        net(x, c_noise, y + 4)  # three classes, and 3 for none of them


@pytest.mark.filterwarnings("ignore:.torch.jit.* is deprecated")  # TorchServe's archives carry it
@pytest.mark.parametrize("n", [1, 3, 8])
def test_torchscript_answers_as_eager(n: int) -> None:
    denoiser = Denoiser(awake(small(patch=2, attention=(2,), blocks=2)), -0.7, 0.6).eval()
    scripted = torch.jit.script(denoiser)
    x, sigma, y = inputs(n, dtype=torch.float32)
    with torch.no_grad():
        for _ in range(3):  # TorchScript runs the first calls as they are and later ones optimised
            assert torch.allclose(scripted(x, sigma, y), denoiser(x, sigma, y), rtol=0, atol=1e-5)


def test_bf16_errors_shrink_with_the_noise() -> None:
    """Only F runs in bf16: it resolves 1/256, and enters D with a factor of at most sigma."""
    denoiser = Denoiser(awake(small()), -0.7, 0.6).eval()
    x, _, y = inputs(4, dtype=torch.float32)
    for s in (1e-3, 1.0):
        sigma = torch.full((4,), s)
        with torch.no_grad():
            exact = denoiser(x, sigma, y)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                rounded = denoiser(x, sigma, y)
            answer = denoiser.net((x + 0.7) / (s**2 + 0.36) ** 0.5, sigma.log() / 4, y)
        assert rounded.dtype == torch.float32
        error = (rounded - exact).abs().max()
        assert 0 < error < s * 0.1 * answer.abs().max()  # of some 25 roundings one after another


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        ((1, 10, 8), {"patch": 2, "channels": (16, 32)}, r"10 x 8 .* = 4: change patch"),
        ((1, 8, 10), {"patch": 2, "channels": (16, 32)}, r"8 x 10 .* = 4: change patch"),
        ((1, 8, 8), {"patch": 1, "attention": (7,)}, r"attention at \[7\], .* resolutions \[8, 4\]"),
        ((1, 8, 8), {"patch": 1, "attention": (4,), "heads": 3}, r"channels \[32\] .* heads \(3\)"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(
    shape: tuple[int, int, int], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        UNet(shape, **{"channels": (16, 32), "attention": (), **settings})
