"""In int8: the wide convolutions of a denoiser and nothing else, with answers near those of fp32."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from real_server import ROOT
from small_networks import question
from torch import Tensor, nn

from genserve.compiling.quantized import WIDE
from genserve.runs.compiled import Compiled, openvino
from genserve.runs.contract import read_spec
from genserve.runs.directory import load_model, model_config

RUNS = ["diffusion-mnist", "consistency-mnist", "diffusion-cifar10"]


def in_int8(op: Any) -> bool:
    """Return whether a convolution multiplies int8: both of its factors are rounded to it."""
    x, weight = (op.input_value(k).get_node() for k in range(2))
    rounded = weight.get_type_name() == "Multiply"  # by its scales
    if rounded:
        stored = weight.input_value(0).get_node().input_value(0).get_node()
        assert stored.get_element_type().get_type_name() == "i8"
    assert rounded == (x.get_type_name() == "FakeQuantize")
    return rounded


def convolutions(files: Path) -> list[Any]:
    model = openvino().Core().read_model(files / "compiled-int8.xml")
    assert not [op for op in model.get_ops() if op.get_type_name() == "MatMul" and in_int8(op)]
    return [op for op in model.get_ops() if op.get_type_name() == "Convolution"]


@pytest.mark.parametrize("run", RUNS)
def test_wide_convolutions_of_3_x_3_are_in_int8_and_no_others(
    run: str, compiled: Callable[[str], Path]
) -> None:
    """Those at both ends, where pixels are, are narrow on one side."""
    network = load_model(ROOT / "weights" / run)
    layers = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d)]
    wide = {
        name
        for name, layer in layers
        if layer.kernel_size == (3, 3) and not name.endswith(("conv_in", "conv_out"))
    }
    assert min(min(layer.in_channels, layer.out_channels) for name, layer in layers if name in wide) >= WIDE
    names = {op.get_friendly_name(): op for op in convolutions(compiled(run))}
    chosen = {name for name, op in names.items() if in_int8(op)}
    assert chosen == {f"__module.denoiser.{name}/aten::_convolution/Convolution" for name in wide}
    assert len(chosen) >= 12
    ends = [name for name in names if name.split("/")[0].endswith(("conv_in", "conv_out"))]
    assert len(ends) == 2


@torch.no_grad()
@pytest.mark.parametrize("run", RUNS)
def test_answers_in_int8_are_near_those_of_the_trained_network(
    run: str, compiled: Callable[[str], Path]
) -> None:
    """Also to queries with which its ranges were not measured; in units of the data's deviation."""
    config, files = model_config(ROOT / "weights" / run), compiled(run)
    model = Compiled(files, read_spec(files / "model.json"), "int8", "fp32", budget=16, lanes=1)
    query = question(64, shape=config.shape, n_classes=len(config.classes))
    answer, expected = model(*query), load_model(ROOT / "weights" / run)(*query)
    assert isinstance(answer, Tensor)
    error = (answer - expected).square().mean((1, 2, 3)).sqrt() / config.std
    assert error.min() > 0
    assert error.mean() < 0.05
    assert error.max() < 0.15
