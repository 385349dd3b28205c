"""Gradients as plain operations are those of autograd, for an operation and for an energy."""

from collections.abc import Callable
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from small_networks import network, question
from torch import Tensor, fx, nn

from genserve.compiling.restated import Restated
from genserve.compiling.slopes import BACKWARD, convolution_backward, doubled, joint
from genserve.runs.compiled import columns
from genserve.sampling.langevin import slope
from genserve.sampling.samplers import Query

ATEN = torch.ops.aten


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gradients(function: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """Return a drawn gradient of the function's value, and autograd's of x."""
    x = x.requires_grad_()
    y = function(x)
    gradient = drawn(*y.shape, seed=1)
    return gradient, torch.autograd.grad(y, x, gradient)[0]


def wrong_by(
    height: int, width: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]
) -> float:
    """Return the largest error of the gradient of a convolution from 3 channels to 2."""
    x, weight = drawn(2, 3, height, width), drawn(2, 3, *kernel, seed=2)
    gradient, expected = gradients(lambda x: F.conv2d(x, weight, None, stride, padding), x)
    result, *others = convolution_backward(gradient, x.detach(), weight, None, [stride] * 2, [*padding])
    assert others == [None, None]
    assert result.shape == x.shape
    return (result - expected).abs().max().item()


@pytest.mark.parametrize(("kernel", "stride", "padding"), product((1, 3, 5), (1, 2), range(5)))
def test_the_gradient_of_a_convolution_is_autograd_s(kernel: int, stride: int, padding: int) -> None:
    for height, width in ((5, 5), (6, 6), (7, 8), (8, 7), (9, 12)):
        assert wrong_by(height, width, (kernel, kernel), stride, (padding, padding)) < 1e-12


@given(
    height=st.integers(5, 12),
    width=st.integers(5, 12),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    stride=st.integers(1, 3),
    padding=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
def test_so_it_is_of_any_kernel_and_size(
    height: int, width: int, kernel: tuple[int, int], stride: int, padding: tuple[int, int]
) -> None:
    assert wrong_by(height, width, kernel, stride, padding) < 1e-12


def test_the_gradient_of_silu_is_autograd_s() -> None:
    x = torch.linspace(-90, 90, 2001, dtype=torch.float64)
    gradient, expected = gradients(F.silu, x)
    result = BACKWARD[ATEN.silu_backward.default](gradient, x.detach())
    torch.testing.assert_close(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dim", [-1, 1])
def test_the_gradient_of_softmax_is_autograd_s(dim: int) -> None:
    x = drawn(2, 3, 5)
    gradient, expected = gradients(lambda x: x.softmax(dim), x)
    result = BACKWARD[ATEN._softmax_backward_data.default](gradient, x.softmax(dim).detach(), dim, x.dtype)
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (4, 4)])
def test_doubling_is_that_of_the_network_and_so_is_its_gradient(size: tuple[int, int]) -> None:
    x, upsample = drawn(2, 3, *size), nn.Upsample(scale_factor=2.0)
    assert torch.equal(doubled(x), upsample(x))
    (gradient, result), (_, expected) = gradients(doubled, x.clone()), gradients(upsample, x)
    assert gradient.shape == (2, 3, 2 * size[0], 2 * size[1])
    torch.testing.assert_close(result, expected, rtol=0, atol=1e-12)


def arguments(kind: str, query: Query) -> tuple[Tensor, ...]:
    """Return what an energy takes as it is compiled."""
    return query if kind == "plain" else tuple(columns(query).values())


@pytest.fixture(scope="module", params=["plain", "residual"])
def graph(request: pytest.FixtureRequest) -> tuple[str, fx.GraphModule]:
    """A kind of energy, and its graph from an example of two images."""
    kind, energy = request.param, network(request.param)
    with torch.no_grad():
        compiled = energy if kind == "plain" else Restated(energy)
        return kind, joint(compiled, arguments(kind, question(2)))


@pytest.mark.parametrize("n", [2, 1, 3, 7])
def test_a_graph_gives_an_energy_and_its_slope_at_any_batch_size(
    n: int, graph: tuple[str, fx.GraphModule]
) -> None:
    kind, both = graph
    query = question(n, seed=n)
    expected = slope(network(kind), *query)
    with torch.no_grad():
        value, gradient = both(*arguments(kind, query))
    torch.testing.assert_close(value, expected.energy, rtol=1e-5, atol=1e-5)
    size = expected.gradient.abs().amax((1, 2, 3), keepdim=True)
    assert size.min() > 0  # of networks as they begin, branches are silent
    torch.testing.assert_close(gradient / size, expected.gradient / size, rtol=0, atol=1e-5)


def test_a_graph_has_none_left_of_the_operations_that_a_compiler_does_not_know(
    graph: tuple[str, fx.GraphModule],
) -> None:
    operations = {node.target for node in graph[1].graph.nodes if node.op == "call_function"}
    assert ATEN.convolution.default in operations
    assert not operations & {*BACKWARD, torch.ops.genserve.doubled.default, ATEN._unsafe_index.Tensor}
    assert (ATEN.upsample_nearest2d.vec in operations) == (graph[0] == "residual")
