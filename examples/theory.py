"""Compute the numbers of docs/theory.md on networks, noise and samplers, with this project's own functions.

python examples/theory.py
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from genserve.models.denoiser import Denoiser, denoising_loss
from genserve.models.unet import Fourier
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import ddim, ddpm, heun, level, sample
from genserve.sampling.schedules import alpha_bar_of, cosine, karras, linear, offset_cosine
from genserve.sampling.wrappers import guided

MEAN, STD = 0.7, 0.2  # of the data, wherever they are a Gaussian: then every answer is known exactly


def tell(*answers: Callable[[], None]) -> None:
    """Print what each function computes; its docstring is the question, a heading of the page."""
    for answer in answers:
        print(f"# {answer.__doc__}\n")
        answer()
        print()


def show(name: str, *values: float | str | Tensor, digits: int = 4) -> None:
    """Print a name and its values, fractions with so many digits."""
    words = []
    for value in values:
        for item in value.flatten().tolist() if isinstance(value, Tensor) else [value]:
            words.append(f"{item + 0.0:.{digits}f}" if isinstance(item, float) else str(item))
    print(f"{name:36}{' '.join(words)}")


def numbers(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def images(n: int) -> Tensor:
    """Return n images of one pixel, all 0."""
    return torch.zeros(n, 1, 1, 1, dtype=torch.float64)


def classes(n: int) -> Tensor:
    return torch.zeros(n, dtype=torch.long)


def gaussian(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """Return E[x_0 | x_t] for data N(MEAN, STD**2): the perfect denoiser."""
    return MEAN + STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2) * (x_t - MEAN)


# ---- networks ----------------------------------------------------------------------------------------------


def sinusoid(t: Tensor, d: int) -> Tensor:
    """Return the embedding of the Transformer, (N,) -> (N, d): sines and cosines in turn."""
    frequency = 10_000.0 ** (-torch.arange(0, d, 2, dtype=torch.float64) / d)
    phase = t.unsqueeze(1) * frequency
    return torch.stack([phase.sin(), phase.cos()], dim=2).flatten(1)


def time_embedding() -> None:
    """How is a network told the time?"""
    show("frequencies, d = 8", 10_000.0 ** (-torch.arange(0, 8, 2) / 8), digits=3)
    show("t = 1, d = 8", sinusoid(numbers(1), 8))
    show("t = 2, d = 8", sinusoid(numbers(2), 8))
    fourier = Fourier(8)
    for sigma in (0.5, 1.0, 80.0):
        c_noise = torch.tensor([sigma]).log() / 4
        show(f"here, sigma = {sigma:g}, d = 8", c_noise, "|", fourier(c_noise))


def positional_encoding() -> None:
    """What has this to do with the positional encodings of Transformers?"""
    e = sinusoid(numbers(3, 5, 103, 105), 8)
    show("PE(3) . PE(5)", e[0] @ e[1])
    show("PE(103) . PE(105)", e[2] @ e[3])
    frequency = 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    turn = torch.polar(torch.ones(4, dtype=torch.float64), -2 * frequency)  # by two positions
    pairs = torch.view_as_complex(e.view(4, 4, 2))  # sin + i cos
    show("PE(3) turned by 2, minus PE(5)", torch.view_as_real(pairs[0] * turn - pairs[1]).abs().max())


def strides() -> None:
    """What size comes out of a convolution with a stride?"""
    for n, kernel, padding in ((64, 3, 1), (64, 3, 0), (28, 3, 1)):
        sizes, x = [n], torch.zeros(1, 1, n, n)
        conv = nn.Conv2d(1, 1, kernel, stride=2, padding=padding)
        for _ in range(3):
            x = conv(x)
            sizes.append(x.shape[-1])
        show(f"kernel {kernel}, stride 2, padding {padding}", " -> ".join(map(str, sizes)))
    x, up = torch.zeros(1, 1, 8, 8), nn.ConvTranspose2d(1, 1, 4, stride=2, padding=1)
    show("transposed: kernel 4, padding 1", f"8 -> {up(x).shape[-1]} -> {up(up(x)).shape[-1]}")
    field, jump = 1, 1
    for _ in range(3):
        field, jump = field + 2 * jump, 2 * jump
    show("pixels seen after three layers", f"{field} x {field}")
    show(
        "28 x 28, 2 x 2 pixels folded",
        " x ".join(map(str, nn.PixelUnshuffle(2)(torch.zeros(1, 28, 28)).shape)),
    )


def prediction() -> None:
    """What does the UNet predict, and what is its loss?"""
    sigma, x_0, eps = numbers(0.5), images(1) + 0.9, images(1) - 1.2
    x_t = x_0 + sigma.view(-1, 1, 1, 1) * eps
    D = gaussian(x_t, sigma, classes(1))
    alpha_bar = alpha_bar_of(sigma)
    signal, noise = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    eps_hat = (x_t - D) / sigma
    show("x_0, eps, x_t", x_0, eps, x_t)
    show("D, the guess of x_0", D)
    show("eps_hat = (x_t - D) / sigma", eps_hat)
    show("score = (D - x_t) / sigma^2", (D - x_t) / sigma**2)
    show("v = signal eps - noise x_0", signal * eps_hat - noise * D)
    show("|D - x_0|^2 / sigma^2", ((D - x_0) / sigma) ** 2)
    show("|eps_hat - eps|^2", (eps_hat - eps) ** 2)
    show("EDM's loss", denoising_loss(gaussian, x_0, sigma, classes(1), eps, STD))


# ---- noise in, noise out -----------------------------------------------------------------------------------


def forward_process() -> None:
    """Why can the forward process jump to any step at once?"""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    mean, variance = 1.0, 0.0  # of x_t, in units of x_0 and of eps
    for b in beta.tolist():
        mean, variance = math.sqrt(1 - b) * mean, (1 - b) * variance + b
    alpha_bar = (1 - beta).cumprod(0)
    show("step by step: mean, variance", mean, variance, digits=6)
    show("at once: mean, variance", alpha_bar[-1].sqrt(), 1 - alpha_bar[-1], digits=6)
    show("alpha_bar at t = 1, 500, 1000", alpha_bar[[0, 499, 999]], digits=6)
    short = (1 - torch.linspace(1e-4, 0.02, 200, dtype=torch.float64)).cumprod(0)
    show("alpha_bar of T = 200, same betas", short[-1])


def schedule_table() -> None:
    """Which noise do the schedules reach, and when?"""
    print(f"{'levels of four steps':36}{'first':>8} {'second':>8} {'third':>8} {'last':>8}")
    for name, sigmas in (
        ("linear, T = 1000", linear(4)),
        ("cosine, T = 1000", cosine(4)),
        ("offset cosine", offset_cosine(4)),
        ("Karras, 40 to 0.002", karras(4, 0.002, 40.0)),
    ):
        show(name, " ".join(f"{sigma:8.4g}" for sigma in sigmas[:-1].tolist()))
        show("    alpha_bar", " ".join(f"{a:8.2g}" for a in alpha_bar_of(sigmas[:-1]).tolist()))


def reverse_process() -> None:
    """How is the reverse step of DDPM derived?"""
    beta = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    alpha_bar = (1 - beta).cumprod(0)
    b, a, a_before = beta[499], alpha_bar[499], alpha_bar[498]  # t = 500
    of_x_0 = a_before.sqrt() * b / (1 - a)
    of_x_t = (1 - b).sqrt() * (1 - a_before) / (1 - a)
    show("beta at t = 500 of T = 1000", b, digits=6)
    show("variance of the step", (1 - a_before) / (1 - a) * b, digits=6)
    show("mean: factors of x_0 and x_t", of_x_0, of_x_t, digits=6)
    sigma, sigma_before = ((1 / each - 1).sqrt() for each in (a, a_before))
    x_t, x_0 = images(1) + 1.5, images(1) + 0.3  # at unit data scale, as everything here
    step = ddpm(x_t, torch.stack([sigma, sigma_before, sigma_before * 0]), classes(1), noise=torch.zeros_like)
    next(step)
    show("its mean by the paper", (of_x_0 * x_0 + of_x_t * a.sqrt() * x_t) / a_before.sqrt())
    show("its mean by our sampler", step.send(x_0).x)


def ode() -> None:
    """Why is DDIM a step of Euler's method?"""
    x_T = 80 * (images(3) + numbers(-2, 0.5, 3).view(3, 1, 1, 1))
    exact = MEAN + STD / math.hypot(STD, 80) * (x_T - MEAN)
    y, none = classes(3), torch.zeros_like
    first = karras(8)[:2]
    stepped = ddim(x_T, torch.cat([first, numbers(0)]), y, noise=none)
    next(stepped)
    D = gaussian(x_T, level(80.0, x_T), y)
    show("Euler's step from sigma 80", (x_T + (first[1] - 80) * (x_T - D) / 80)[:2])
    show("DDIM's step", stepped.send(D).x[:2])
    for name, sampler in (("DDIM", partial(ddim, noise=none)), ("Heun", heun)):
        errors = torch.stack(
            [(sample(sampler(x_T, karras(n), y), gaussian) - exact).abs().max() for n in (32, 64, 128)]
        )
        show(f"{name}: error in 32, 64, 128 steps", errors, digits=6)
        show("    each divided by the next", errors[:-1] / errors[1:], digits=2)


def guidance() -> None:
    """What does guidance change?"""
    means = numbers(-0.5, 0.7, 0.1)  # of two classes, and of all data (class 2 means none)

    def model(x_t: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return gaussian(x_t - means[y].view(-1, 1, 1, 1) + MEAN, sigma, y) + means[y].view(-1, 1, 1, 1) - MEAN

    sigmas, y = karras(128), classes(1) + 1
    show("mean of the class, of all data", means[1:])
    for w in (0.0, 1.0, 2.0):
        sampler = guided(ddim(images(1) + 40.0, sigmas, y, noise=torch.zeros_like), w, no_class=2)
        show(f"w = {w:g}", sample(sampler, model))


# ---- this project's terms ----------------------------------------------------------------------------------


def tweedie() -> None:
    """What have a denoiser and the score to do with each other?"""
    points, sigma = numbers(-1, 1), 0.8  # all the data there are

    def log_p(x: Tensor) -> Tensor:  # of a point with noise of sigma, up to a constant
        return torch.logsumexp(-((x - points) ** 2) / (2 * sigma**2), 0)

    x = numbers(0.3).requires_grad_()
    (score,) = torch.autograd.grad(log_p(x), x)
    share = torch.softmax(-((x.detach() - points) ** 2) / (2 * sigma**2), 0)
    show("data, and their shares", points, share)
    show("D, their mean", share @ points)
    show("x + sigma^2 score", x.detach() + sigma**2 * score)


def preconditioning() -> None:
    """What does the preconditioning of EDM do?"""
    mean, std, n = -0.7387, 0.6162, 200_000  # of MNIST's pixels; Gaussian numbers stand for them
    noise = Streams(1, [0])
    x_0 = mean + std * noise(torch.zeros(1, n, dtype=torch.float64))
    eps = noise(torch.zeros(1, n, dtype=torch.float64))
    for sigma in (0.002, 0.5, 40.0):
        total = math.hypot(sigma, std)
        c_skip, c_out, c_in = std**2 / total**2, sigma * std / total, 1 / total
        x_t = x_0 + sigma * eps
        target = (x_0 - mean - c_skip * (x_t - mean)) / c_out  # what F has to answer
        show(f"sigma = {sigma:g}: c_skip, c_out, c_in", c_skip, c_out, c_in)
        show("    std of F's input and target", (c_in * (x_t - mean)).std(), target.std(), digits=2)
    silent = Denoiser(lambda x, c_noise, y: torch.zeros_like(x), mean, std)  # type: ignore[arg-type]
    show("D of a silent F, x = 1, sigma 0.5", silent(images(1) + 1, numbers(0.5), classes(1)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    tell(
        time_embedding,
        positional_encoding,
        strides,
        prediction,
        forward_process,
        schedule_table,
        reverse_process,
        ode,
        guidance,
        tweedie,
        preconditioning,
    )
