"""Compare what a Langevin step costs with a forward pass, and what makes it cheaper: one core, images/s.

    genserve bench-step
    genserve bench-step --run weights/energy-mnist-pcd --batch-sizes 16 128

A step is one gradient with respect to the image, of an energy whose parameters need none, and one update with
noise. Each row is timed in turns with the others, so that a slow moment of the machine hits all of them.

    forward     the energy alone, frozen TorchScript
    eager       autograd through the module
    nchw        the same, not in channels_last
    script      autograd through frozen TorchScript: what a server runs
    graph       forward and backward traced into one TorchScript of a fixed batch size, no autograd left
    parameters  autograd that computes the parameters' gradients as well, as a careless loop does
"""

import statistics
import time
import warnings
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from genserve.cli import config_of, plain_errors
from genserve.places import located
from genserve.precision import PRECISIONS
from genserve.runs.directory import load_model, model_config
from genserve.runs.loading import torchscript
from genserve.sampling.langevin import Slope, slope

Evaluate = Callable[[Tensor, Tensor, Tensor], object]


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """What to time.

    Args:
        run: run directory of an energy.
        batch_sizes: images in one step.
        rounds: turns; the table has their median.
        seconds: of each measurement.
    """

    run: str = "weights/energy-mnist"
    batch_sizes: tuple[int, ...] = (1, 16, 32)
    rounds: int = 5
    seconds: float = 0.5


def gradient_graph(energy: torch.nn.Module, point: tuple[Tensor, Tensor, Tensor]) -> torch.jit.ScriptModule:
    """Return forward and backward as one frozen TorchScript, for this batch size alone."""
    traced = make_fx(lambda *query: tuple(slope(energy, *query)))(*point)
    for node in traced.graph.nodes:
        if node.target is torch.ops.aten.view.default:  # which channels_last may not allow
            node.target = torch.ops.aten.reshape
        elif isinstance(node.target, torch._ops.OpOverload):  # TorchScript finds the overload itself
            node.target = node.target.overloadpacket
    traced.recompile()
    with torchscript():
        warnings.filterwarnings("ignore", message=".*type system", category=UserWarning)  # of traced modules
        graph: torch.jit.ScriptModule = torch.jit.freeze(torch.jit.script(traced.eval()))
        return graph


def methods(directory: Path, dtype: torch.dtype, point: tuple[Tensor, Tensor, Tensor]) -> dict[str, Evaluate]:
    """Return every method of taking a step, by its name in the table."""
    plain = load_model(directory).to(dtype)
    energy = deepcopy(plain).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    careless = deepcopy(energy).requires_grad_(True)
    weights = list(careless.parameters())
    with torchscript():
        frozen = torch.jit.freeze(torch.jit.script(energy))

    def stepping(look: Callable[[Tensor, Tensor, Tensor], Slope]) -> Evaluate:
        return lambda x, sigma, y: x.sub(look(x, sigma, y)[1], alpha=0.1).add(torch.randn_like(x), alpha=0.1)

    def everything(x: Tensor, sigma: Tensor, y: Tensor) -> Slope:
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            e = careless(x, sigma, y)
            gradients = torch.autograd.grad(e.sum(), [x, *weights], allow_unused=True)
        return Slope(e, gradients[0])

    return {
        "forward": frozen,
        "eager": stepping(partial(slope, energy)),
        "nchw": stepping(partial(slope, plain)),
        "script": stepping(partial(slope, frozen)),
        "graph": stepping(gradient_graph(energy, point)),
        "parameters": stepping(everything),
    }


@torch.no_grad()
def rate(method: Evaluate, point: tuple[Tensor, Tensor, Tensor], seconds: float) -> float:
    """Return images/s."""
    began, done = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        method(*point)
        done += len(point[0])
    return done / (time.perf_counter() - began)


def main(config: StepConfig) -> None:
    """Time every method in every precision and print a table for each."""
    torch.set_num_threads(1)
    directory = located(config.run)
    shape = model_config(directory).shape
    for name, dtype in PRECISIONS.items():
        columns = {}
        for n in config.batch_sizes:
            point = (torch.rand(n, *shape) * 2 - 1, torch.full((n,), 0.5), torch.zeros(n, dtype=torch.long))
            steps = methods(directory, dtype, point)
            rates: dict[str, list[float]] = {name: [] for name in steps}
            for k in range(config.rounds + 1):  # the first turn warms up
                for method, step in steps.items():
                    rates[method].append(rate(step, point, config.seconds if k else 0.2))
            columns[n] = {method: values[1:] for method, values in rates.items()}
        print(f"\n{name:12}" + "".join(f"{f'batch {n}':>26}" for n in columns))
        for method in next(iter(columns.values())):
            cells = []
            for rows in columns.values():
                pairs = zip(rows["forward"], rows[method], strict=True)
                ratio = statistics.median(forward / step for forward, step in pairs)
                cells.append(f"{statistics.median(rows[method]):10.0f}/s {ratio:5.2f} forward")
            print(f"{method:12}" + "".join(f"{cell:>26}" for cell in cells))


def command_line(argv: list[str]) -> StepConfig:
    """Return what the flags ask for; dashes and underscores are alike."""
    lists = {"batch_sizes": (int, "images per step, one column of the table each")}
    return config_of(StepConfig, __doc__, argv, lists=lists)


def run(argv: list[str]) -> None:
    """Do what the flags ask for; a mistake ends the program in one line."""
    with plain_errors():
        main(command_line(argv))
