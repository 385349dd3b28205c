"""Load what an archive carries, model.pt and model.json, as a model that is ready to be evaluated."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from genserve.runs.contract import Spec, read_spec
from genserve.runs.packing import packed
from genserve.sampling.engine import Evaluate
from genserve.sampling.langevin import slope


def load_model(
    directory: Path, device: torch.device, dtype: torch.dtype = torch.float32, budget: int = 2
) -> tuple[Spec, Evaluate]:
    """Return contract and model of an unpacked archive, ready to be called without gradients on `device`.

    The network is frozen and in channels_last; on a CPU, a denoiser's weights are packed, which gradients do
    not pass. docs/benchmarks.md says what each step is worth. An energy comes with its gradient.

    Args:
        directory: of model.pt and model.json.
        dtype: of the network's weights, in which it computes; x, sigma and the answer stay float32.
        budget: most images in one evaluation; TorchScript compiles for this number here, not in a request.

    Raises:
        FileNotFoundError, ValueError: as `read_spec`.
    """
    spec = read_spec(directory / "model.json")
    with torchscript():
        loaded = torch.jit.load(str(directory / "model.pt"), map_location=device)
        loaded = loaded.eval().to(memory_format=torch.channels_last).to(dtype)
        frozen = torch.jit.freeze(loaded)
    model: Evaluate = packed(frozen) if device.type == "cpu" and not spec.kind.slopes else frozen
    if spec.kind.slopes:
        model = partial(slope, frozen)
    # TorchScript specialises itself on its first two calls, and the answer to the first differs in rounding
    for n in (1, budget, 1, budget):
        x, sigma = torch.zeros(n, *spec.shape, device=device), torch.ones(n, device=device)
        with torch.no_grad():
            model(x, sigma, torch.zeros(n, dtype=torch.long, device=device))
    return spec, model


@contextmanager
def torchscript() -> Iterator[None]:
    """Silence the warning that TorchScript is deprecated: TorchServe does not load torch.export."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        yield
