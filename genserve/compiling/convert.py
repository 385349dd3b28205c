"""Compile a run for OpenVINO: the network as an intermediate representation, and a sample of its answers.

    python -m genserve.compiling.convert RUN OUTPUT [int8]

It writes compiled.xml and compiled.bin, or compiled-int8.xml and .bin, which hold the network for any batch
size, and compiled.safetensors: queries along drawn paths and the trained network's answers to them in fp32. A
server compares its own answers with these before it trusts what it has compiled. A file .json beside them has
their digests, and that of the weights.
"""

import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genserve.cli import plain_errors
from genserve.compiling.paths import along_paths, spread
from genserve.compiling.quantized import quantized
from genserve.compiling.restated import Restated
from genserve.compiling.slopes import joint
from genserve.families import FAMILIES
from genserve.models.contrastive import ConvEnergy
from genserve.models.energy import ResidualEnergy
from genserve.runs.comparison import PLAIN, QUANTIZED, SAMPLE, Comparison, write_record
from genserve.runs.compiled import SIZES, columns, openvino
from genserve.runs.defaults import spec_of
from genserve.runs.directory import config_of, load_model
from genserve.runs.loading import torchscript
from genserve.sampling.engine import Call
from genserve.sampling.langevin import slope
from genserve.sampling.samplers import Query

COMPILED = tuple(name for name, family in FAMILIES.items() if family.compiled)
IMAGES = {False: 8, True: 3}  # of a path, by whether it is an energy, which takes ten times as long
SAMPLES = 16  # queries that a server compares itself with


def compile_run(run: Path, out: Path, int8: bool = False) -> None:
    """Write the compiled network of a run; it must be a denoiser or an energy.

    Raises:
        FileNotFoundError, OSError: as `directory.load_model`.
        ValueError: the run is of another family, or an energy is to be int8; or what was compiled answers
            otherwise than the network.
        ModuleNotFoundError: OpenVINO is not installed, or for int8 NNCF.
    """
    family = config_of(run).family
    if family not in COMPILED:
        raise ValueError(f"{run} is of the family {family}; OpenVINO compiles {' and '.join(COMPILED)}")
    spec, network = spec_of(run), load_model(run).eval().requires_grad_(False)
    if int8 and spec.kind.slopes:
        raise ValueError(f"{run} is an energy: int8 is for denoisers, as gradients have no one range")
    answers: Call = partial(slope, network) if spec.kind.slopes else network
    paths = along_paths(spec, answers, IMAGES[spec.kind.slopes])
    model = represented(network, Query(*(torch.cat(column[:2]) for column in zip(*paths, strict=True))))
    if int8:
        model = quantized(model, [columns(query) for query in paths])
    out.mkdir(parents=True, exist_ok=True)
    sample = spread(paths, SAMPLES, spec.no_class)
    rounded = load_model(run).eval().requires_grad_(False).to(torch.bfloat16)
    rounded_answers: Call = partial(slope, rounded) if spec.kind.slopes else rounded
    Comparison.of(sample, answers, rounded_answers).write(out / SAMPLE)
    stem = QUANTIZED if int8 else PLAIN
    openvino().save_model(model, str(out / f"{stem}.xml"), compress_to_fp16=False)
    # A linear layer over all positions rounds otherwise in other sizes, for one image in a hundred.
    sizes = SIZES[spec.kind.slopes][-1:] if isinstance(network, ConvEnergy) else SIZES[spec.kind.slopes]
    write_record(out, stem, spec.weights, sizes)


def represented(network: nn.Module, query: Query) -> Any:
    """Return a network as an openvino.Model of any batch size; its inputs are named as in `columns`."""
    given = columns(query)
    plain = isinstance(network, ConvEnergy)
    names = ["x", "sigma", "y"] if plain else list(given)
    example = tuple(given[name] for name in names)
    restated = network if plain else Restated(network)
    ov = openvino()
    with torch.no_grad(), torchscript():
        if isinstance(network, ConvEnergy | ResidualEnergy):
            decoder = importlib.import_module("openvino.frontend.pytorch.fx_decoder").TorchFXPythonDecoder
            # without the second trace and the decompositions of torch.export, which take three times as long
            model = ov.convert_model(decoder(joint(restated, example), dynamic_shapes=True))
        else:
            model = ov.convert_model(restated, example_input=example)
    for port, name in zip(model.inputs, names, strict=True):
        port.get_tensor().set_names({name})
    model.reshape({name: [-1, *given[name].shape[1:]] for name in names})
    return model


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[3:] not in ([], ["int8"]):
        sys.exit("usage: python -m genserve.compiling.convert RUN OUTPUT [int8]")
    with plain_errors():
        compile_run(Path(sys.argv[1]), Path(sys.argv[2]), int8=len(sys.argv) == 4)
