"""The wide convolutions of a network in int8, by NNCF."""

import logging
import os
from typing import Any

from torch import Tensor

WIDE = 16  # channels in and out, from which a 3 x 3 convolution is wide


def quantized(model: Any, queries: list[dict[str, Tensor]]) -> Any:
    """Return an openvino.Model whose wide 3 x 3 convolutions multiply int8; everything else stays as it is.

    The first and the last convolution see pixels and decide about them, and the preconditioning spans five
    orders of magnitude: in int8 they would be broken. The ranges of weights are of a channel, those of
    activations of a tensor, over all queries.

    Args:
        queries: arguments of the network by their names.

    Raises:
        ModuleNotFoundError: NNCF is not installed.
    """
    os.environ["NNCF_CI"] = "true"  # it tells its maker of no use
    import nncf  # type: ignore[import-untyped]

    logging.getLogger("nncf").setLevel(logging.WARNING)  # a line for each operation that stays as it is
    no_operations = ("Constant", "Parameter", "Result")
    operations = [op for op in model.get_ops() if op.get_type_name() not in no_operations]
    wide = {op.get_friendly_name() for op in operations if _is_wide(op)}
    others = [op.get_friendly_name() for op in operations if op.get_friendly_name() not in wide]
    return nncf.quantize(
        model,
        nncf.Dataset([{name: tensor.numpy() for name, tensor in query.items()} for query in queries]),
        subset_size=len(queries),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(names=others, validate=False),
    )


def _is_wide(op: Any) -> bool:
    if op.get_type_name() != "Convolution":
        return False
    c_out, c_in, *kernel = op.input(1).get_shape()
    return min(c_in, c_out) >= WIDE and tuple(kernel) == (3, 3)
