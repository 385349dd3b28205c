"""An energy and its gradient as one graph of plain operations, for a compiler that knows no gradients."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, library
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from genserve.sampling.langevin import slope


def joint(energy: Callable[..., Tensor], example: tuple[Tensor, ...]) -> fx.GraphModule:
    """Return the graph of (x, sigma, ...) -> (E, gradient with respect to x), for any batch size.

    Args:
        energy: (x, sigma, ...) -> E (B,).
        example: its arguments, of at least 2 images.
    """

    def both(x: Tensor, sigma: Tensor, *others: Tensor) -> tuple[Tensor, Tensor]:
        e, gradient = slope(lambda x, sigma, _: energy(x, sigma, *others), x, sigma, sigma)
        return e, gradient

    shapes = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    fakes = [shapes.from_tensor(tensor, symbolic_context=_any_batch(tensor)) for tensor in example]
    traced = make_fx(
        both, decomposition_table=BACKWARD, tracing_mode="symbolic", _allow_non_fake_inputs=True
    )(*fakes)
    for node in traced.graph.nodes:
        if node.target is torch.ops.genserve.doubled.default:
            node.target, node.args = ATEN.upsample_nearest2d.vec, (*node.args, None, [2.0, 2.0])
    traced.graph.eliminate_dead_code()
    traced.recompile()
    return traced


def _any_batch(tensor: Tensor) -> "StatelessSymbolicContext[..., Any]":
    """Return that the first dimension is a symbol: all dimensions as symbols take four times as long."""
    others = [DimDynamic.STATIC] * (tensor.dim() - 1)
    return StatelessSymbolicContext(dynamic_sizes=[DimDynamic.DUCK, *others])


def convolution_backward(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    _bias: Any,
    stride: list[int],
    padding: list[int],
    *_: Any,
) -> tuple[Tensor, None, None]:
    """Return the gradient of a convolution with respect to its input, as a convolution.

    With a stride of 1 it is the convolution with the kernel turned round. With a stride of s, the input's
    pixels fall into s x s kinds, each of which meets its own part of the kernel: one convolution has the
    kinds as channels, and a pixel shuffle puts them in place. OpenVINO has transposed convolutions, but in
    fp32 their answers were wrong by a fifth.
    """
    s, (height, width) = stride[0], weight.shape[2:]
    rows, top, bottom = _taps(height, s, padding[0])
    columns, left, right = _taps(width, s, padding[1])
    turned = weight.transpose(0, 1)
    zero = torch.zeros_like(turned[:, :, 0, 0])
    kinds = [
        torch.stack(
            [
                torch.stack([zero if i is None or j is None else turned[:, :, i, j] for j in across], -1)
                for i in down
            ],
            -2,
        )
        for down in rows
        for across in columns
    ]
    kernel = torch.stack(kinds, 1).flatten(0, 1)
    # as many positions as the input has blocks of s x s
    need = [-(-n // s) for n in x.shape[2:]]
    pads = (left, need[1] + right - gradient.shape[3], top, need[0] + bottom - gradient.shape[2])
    answer = F.conv2d(F.pad(gradient, pads), kernel)
    answer = F.pixel_shuffle(answer, s) if s > 1 else answer
    return answer[:, :, : x.shape[2], : x.shape[3]], None, None


def _taps(size: int, stride: int, padding: int) -> tuple[list[list[int | None]], int, int]:
    """Return which entries of a kernel the gradient meets, along one dimension.

    Input i of kind a = i mod stride is met by entry k of output j if stride * j - padding + k = i.

    Returns:
        For each kind the entries at consecutive outputs, None for a zero; how many of these outputs come
        before the input's own i // stride; and how many after it.
    """
    offsets = {  # kind -> {output, counted from the input's own: entry}
        a: {(a + padding - k) // stride: k for k in range(size) if (a + padding - k) % stride == 0}
        for a in range(stride)
    }
    reached = [d for entries in offsets.values() for d in entries]
    first, last = min(reached), max(reached)
    taps = [[entries.get(d) for d in range(first, last + 1)] for entries in offsets.values()]
    return taps, -first, last


def silu_backward(gradient: Tensor, x: Tensor) -> Tensor:
    """Return the gradient of x * sigmoid(x)."""
    gate = torch.sigmoid(x)
    return gradient * (gate * (1 + x * (1 - gate)))


@library.custom_op("genserve::doubled", mutates_args=())
def doubled(x: Tensor) -> Tensor:
    """Return images of twice the height and width, every pixel four times.

    As an operation of PyTorch it would be traced as an index for each pixel.
    """
    return F.interpolate(x, scale_factor=2.0)


@doubled.register_fake
def _(x: Tensor) -> Tensor:
    return x.new_empty(*x.shape[:2], 2 * x.shape[2], 2 * x.shape[3])


def doubling_backward(_: Any, gradient: Tensor) -> Tensor:
    """Return the gradient of `doubled`: sums over 2 x 2."""
    return F.avg_pool2d(gradient, 2) * 4


doubled.register_autograd(doubling_backward)


def softmax_backward(gradient: Tensor, y: Tensor, dim: int, *_: Any) -> Tensor:
    """Return the gradient of a softmax whose answer is y."""
    return (gradient - (gradient * y).sum(dim, keepdim=True)) * y


ATEN = torch.ops.aten
BACKWARD: dict[Any, Callable[..., Any]] = {
    ATEN.convolution_backward.default: convolution_backward,
    ATEN.silu_backward.default: silu_backward,
    ATEN._softmax_backward_data.default: softmax_backward,
}
