"""Compute the numbers of docs/theory.md on energies and gradients, with this project's own functions.

python examples/gradients.py
"""

import math
from functools import partial

import torch
from theory import MEAN, STD, classes, gaussian, images, numbers, show, tell
from torch import Tensor, nn

from genserve.sampling.langevin import langevin, mala, slope
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample


def energy(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
    """Return -log p(x), up to a constant, of the same data with noise of sigma on them."""
    return ((x - MEAN) ** 2).flatten(1).sum(1) / (2 * (STD**2 + sigma**2))


def energies() -> None:
    """What is an energy, and what is its gradient good for?"""
    x, sigma, y = images(1) + 1.0, numbers(0.5), classes(1)
    e, gradient = slope(energy, x, sigma, y)
    show("E, gradient", e, gradient)
    e, gradient = slope(lambda *query: energy(*query) + 3, x, sigma, y)
    show("E + 3, its gradient", e, gradient)
    show("D by the gradient", x - sigma**2 * gradient)
    show("D by the formula", gaussian(x, sigma, y))


def langevin_chains() -> None:
    """How does Langevin dynamics draw, and where does it go wrong?"""
    show("data: mean, std, 2 s^2", MEAN, STD, 2 * STD**2, digits=2)
    stream, chains, y = Streams(1, [0]), images(20_000), classes(20_000)

    def noise(x: Tensor) -> Tensor:
        return stream(x.view(1, -1)).view_as(x)

    clean = partial(slope, lambda x, sigma, y: energy(x, 0 * sigma, y))
    for h in (0.002, 0.02, 0.06):
        x = sample(langevin(chains, 1.0, y, steps=200, step_size=h, noise=noise), clean)
        show(f"step {h:g}: mean, std", x.mean(), x.std(), digits=2)
        show("    std by the formula", STD / math.sqrt(1 - h / (2 * STD**2)), digits=2)
    x = sample(mala(chains, 1.0, y, steps=200, step_size=0.06, noise=noise), clean)
    show("step 0.06 with Metropolis' test", x.mean(), x.std(), digits=2)
    x = sample(langevin(chains[:1], 1.0, y[:1], steps=200, step_size=0.02, noise_std=0.0, noise=noise), clean)
    show("step 0.02 without noise", x)


# ---- gradients ---------------------------------------------------------------------------------------------


def input_gradient() -> None:
    """What is dy/dx of y = x^2 + 3x at 2, and what if requires_grad is missing?"""
    x = torch.tensor(2.0, requires_grad=True)
    y = x**2 + 3 * x
    y.backward()
    show("dy/dx", x.grad, digits=0)
    x = torch.tensor(2.0)  # requires_grad is False if it is not given
    y = x**2 + 3 * x
    show("requires_grad of x and y", x.requires_grad, y.requires_grad)
    try:
        y.backward()
    except RuntimeError as error:
        show("y.backward()", type(error).__name__)


def parameter_gradient() -> None:
    """Why is w.grad None?"""
    x = torch.tensor([4.0, 2.0])
    w = torch.tensor([1.0, 1.0])
    show("w without requires_grad", (w * x).sum().requires_grad)
    w = torch.tensor([0.5, 0.5], requires_grad=True) * 2  # the result of an operation, no leaf
    w.retain_grad()
    show("w = 2 * leaf: is_leaf", w.is_leaf)
    w = torch.tensor([1.0, 1.0], requires_grad=True)
    (w * x).sum().backward()
    show("w.grad", w.grad, digits=0)
    show("x.grad", str(x.grad))


def detaching() -> None:
    """What does detach() do?"""
    show("x", 2)
    for name, cut in (("z = x^2 * x", lambda y: y), ("y = x^2, z = y.detach() * x", torch.Tensor.detach)):
        x = torch.tensor(2.0, requires_grad=True)
        y = x**2
        (cut(y) * x).backward()
        show(name + ": dz/dx", x.grad, digits=0)
    show("y.detach() shares y's memory", y.detach().data_ptr() == y.data_ptr())


def accumulation() -> None:
    """Why do gradients add up, and how are they reset?"""
    w = nn.Parameter(torch.tensor(1.0))
    (2 * w).backward()
    show("after 2w", w.grad, digits=0)
    (3 * w).backward()
    show("after 3w", w.grad, digits=0)
    nn.ParameterList([w]).zero_grad()  # as an optimizer does
    show("after zero_grad()", str(w.grad))
    data = numbers(1, 2, 4, 7)
    w = numbers(0.5).requires_grad_()
    ((w * data - 1) ** 2).mean().backward()
    whole, w.grad = w.grad, None
    for part in data.chunk(2):
        (((w * part - 1) ** 2).mean() / 2).backward()
    show("batch of 4, and 2 halves of it", whole, w.grad)


def descent_on_inputs() -> None:
    """How is an input changed by descent, with the network left alone?"""
    network = nn.Linear(2, 1, bias=False).double()
    with torch.no_grad():
        network.weight.copy_(numbers(3, 4))
    x = numbers(1, 1)
    for _ in range(50):
        (gradient,) = torch.autograd.grad((network(x.requires_grad_()) ** 2).sum(), x)
        x = (x - 0.01 * gradient).detach()
    show("weights", network.weight.detach(), digits=0)
    show("x", x)
    show("network(x)", network(x).detach())
    show("network.weight.grad", str(network.weight.grad))
    for n in (1, 16):
        x = images(n).requires_grad_()
        (gradient,) = torch.autograd.grad(energy(x, numbers(0), classes(n)).mean(), x)
        summed = slope(energy, images(n), numbers(0), classes(n)).gradient
        show(f"batch of {n}: of the mean, the sum", gradient[0], summed[0])


def double_backward() -> None:
    """How is an energy trained through its own gradient?"""
    theta = numbers(1.5).requires_grad_()

    def spring(x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return (theta * x.flatten(1) ** 2 / 2).sum(1)

    gradient = slope(spring, images(1) + 2.0, numbers(1), classes(1), create_graph=True).gradient
    show("dE/dx = theta x", gradient.detach())
    gradient.sum().backward()
    show("d/dtheta of it = x", theta.grad)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tell(
        energies,
        langevin_chains,
        input_gradient,
        parameter_gradient,
        detaching,
        accumulation,
        descent_on_inputs,
        double_backward,
    )
