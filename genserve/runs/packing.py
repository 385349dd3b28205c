"""Make a served network fast on its machine: weights in the layout that the CPU computes in."""

import logging
from typing import Any

import torch
from torch import Tensor

from genserve.sampling.engine import Answer, Call

log = logging.getLogger(__name__)


# a convolution in the graph of a model, and its replacement
CONVOLUTION = """graph(%x, %w, %b, %stride, %pad, %dilation, %groups):
  %out = aten::conv2d(%x, %w, %b, %stride, %pad, %dilation, %groups)
  return (%out)"""
PACKED = """graph(%x, %w, %b, %stride, %pad, %dilation, %groups):
  %attr : str = prim::Constant[value="none"]()
  %scalars : Scalar?[] = prim::ListConstruct()
  %algo : str = prim::Constant[value=""]()
  %out = mkldnn::_convolution_pointwise(%x, %w, %b, %pad, %stride, %dilation, %groups, %attr, %scalars, %algo)
  return (%out)"""


def packed(frozen: torch.jit.ScriptModule) -> Call:
    """Return a model with its convolution weights in the layout that oneDNN computes in, on a CPU.

    Without this, oneDNN reorders all of them in every evaluation: a third of the time with one image, a
    fourteenth with 16. The pictures are the same. If the graph cannot be rewritten, the model is returned as
    it was, with a warning.
    """
    if not torch.backends.mkldnn.is_available():
        return frozen
    try:
        return _packed(frozen)
    except RuntimeError as error:
        log.warning("weights are not packed, which is slower but right: %s", str(error).splitlines()[0])
        return frozen


def _packed(frozen: torch.jit.ScriptModule) -> Call:
    graph: Any = frozen.graph.copy()
    torch._C._jit_pass_custom_pattern_based_rewrite_graph(CONVOLUTION, PACKED, graph)
    weights: list[Tensor] = []
    # A constant cannot hold a packed tensor, so they become arguments.
    for node in graph.findAllNodes("mkldnn::_convolution_pointwise"):
        _, weight, _, pad, stride, dilation, groups, *_ = node.inputs()
        settings = [value.toIValue() for value in (pad, stride, dilation, groups)]
        weights.append(torch.ops.mkldnn._reorder_convolution_weight(weight.toIValue(), *settings))
        argument = graph.addInput()
        argument.setType(torch._C.TensorType.get())
        node.replaceInputWith(weight, argument)
    graph.eraseInput(0)  # the module itself, of which freezing left nothing
    torch._C._jit_pass_dce(graph)
    function: Any = torch._C._create_function_from_graph("forward", graph)

    def call(*query: Tensor) -> Answer:
        answer: Answer = function(*query, *weights)
        return answer

    return call
