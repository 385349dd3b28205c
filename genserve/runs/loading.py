"""From what an archive carries, model.pt and model.json, to a model that is ready to be asked."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from genserve.runs.export import Spec, export, read_spec, torchscript
from genserve.runs.packing import packed
from genserve.sampling.engine import Evaluate
from genserve.sampling.langevin import slope


def load_model(
    directory: Path, device: torch.device, dtype: torch.dtype = torch.float32, budget: int = 2
) -> tuple[Spec, Evaluate]:
    """Return contract and model of an unpacked archive, ready to be called without gradients on `device`.

    Frozen and in channels_last; a denoiser on a CPU with packed weights, which no gradient goes through.
    docs/benchmarks.md has what each is worth. An energy comes with its gradient.

    Args:
        dtype: of the network's weights, in which it computes; x, sigma and the answer stay float32.
        budget: most images in one evaluation; no later evaluation of so many waits for anything.
    """
    spec = read_spec(directory / "model.json")
    with torchscript():
        loaded = torch.jit.load(str(directory / "model.pt"), map_location=device)
        loaded = loaded.eval().to(memory_format=torch.channels_last).to(dtype)
        frozen = torch.jit.freeze(loaded)
    model: Evaluate = partial(slope, frozen)
    if spec.family != "energy":
        model = packed(frozen) if device.type == "cpu" else frozen
    # TorchScript specialises itself on its first two calls, and the answer to the first differs in rounding
    for n in (1, budget, 1, budget):
        x, sigma = torch.zeros(n, *spec.shape, device=device), torch.ones(n, device=device)
        with torch.no_grad():
            model(x, sigma, torch.zeros(n, dtype=torch.long, device=device))
    return spec, model


def served_model(
    directory: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Spec, Evaluate]:
    """Return contract and model of a run as a server would have them, to the bit; arguments as `load_model`.

    Raises:
        FileNotFoundError, ValueError: as `export`.
    """
    with TemporaryDirectory() as folder:
        export(directory, Path(folder))
        return load_model(Path(folder), device, dtype)
