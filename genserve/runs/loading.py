"""Load what an archive carries, model.pt and model.json, as a model that is ready to be evaluated."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from genserve.backends import BACKENDS, INT8, OPENVINO, SERVED_IN, TORCHSCRIPT
from genserve.families import load
from genserve.precision import PRECISIONS, precision_for
from genserve.runs.compiled import load_compiled
from genserve.runs.contract import Contract, read_spec
from genserve.runs.packing import packed
from genserve.sampling.engine import Call, Evaluate
from genserve.sampling.langevin import slope

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """A model that is ready to be evaluated, and what it runs by, which may not be what was wished for."""

    spec: Contract
    model: Evaluate  # called without gradients
    backend: str  # one of BACKENDS
    precision: str  # one of SERVED_IN but "auto"
    complete: Callable[[], None] = lambda: None  # makes it faster, while it answers already


def load_served(
    directory: Path,
    device: torch.device,
    backend: str = TORCHSCRIPT,
    precision: str = "auto",
    budget: int = 2,
    lanes: int = 1,
    complete: bool = True,
) -> Served:
    """Return the model of an unpacked archive. What OpenVINO cannot run here, TorchScript does.

    Args:
        directory: with model.pt and model.json, for OpenVINO also what `compiling.convert` wrote.
        device: OpenVINO is for CPUs.
        backend: one of BACKENDS.
        precision: one of SERVED_IN; "auto" for what the device is fast at.
        budget: most items in one evaluation.
        lanes: evaluations side by side, at most.
        complete: a compiled network is complete; else the caller completes it (`Served.complete`).

    Raises:
        ValueError: there is no such backend or precision, or they do not go together.
        FileNotFoundError, ValueError: as `read_spec`.
    """
    for name, value, allowed in (("backend", backend, BACKENDS), ("precision", precision, SERVED_IN)):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    if precision == INT8 and backend != OPENVINO:
        raise ValueError(f"precision {INT8} needs backend {OPENVINO}, got {backend!r}")
    spec = read_spec(directory / "model.json")
    rest = precision if precision in PRECISIONS else spec.kind.precision or precision_for(device)
    chosen = INT8 if precision == INT8 else rest
    if backend == OPENVINO and device.type != "cpu":
        log.info("OpenVINO is for CPUs: TorchScript runs on %s", device)
    elif backend == OPENVINO and (compiled := load_compiled(directory, spec, chosen, rest, budget, lanes)):
        served = Served(spec, compiled, OPENVINO, chosen, compiled.complete)
        if complete:
            served.complete()
        return served
    _, model = load_model(directory, device, PRECISIONS[rest], budget)
    return Served(spec, model, TORCHSCRIPT, rest)


def load_model(
    directory: Path, device: torch.device, dtype: torch.dtype = torch.float32, budget: int = 2
) -> tuple[Any, Any]:
    """Return contract and model of an unpacked archive, ready to be called without gradients on `device`.

    The network is frozen and in channels_last; on a CPU, a denoiser's weights are packed, which gradients do
    not pass. docs/benchmarks.md says what each step is worth. An energy comes with its gradient. A network
    that answers queries of several kinds is a dictionary: the class of a query -> what is called with it.

    Args:
        directory: of model.pt and model.json.
        dtype: of the network's weights, in which it computes; x, sigma and the answer stay float32.
        budget: most items in one evaluation; TorchScript compiles for this number here, not in a request.

    Raises:
        FileNotFoundError, ValueError: as `read_spec`.
    """
    spec = read_spec(directory / "model.json")
    with torchscript():
        loaded = torch.jit.load(str(directory / "model.pt"), map_location=device)
        loaded = loaded.eval().to(memory_format=torch.channels_last).to(dtype)
        methods = [name for name in spec.kind.queries if name != "forward"]
        frozen = torch.jit.freeze(loaded, preserved_attrs=methods)
    queries = spec.kind.queries.items()
    models = {load(path): _call(frozen, name, spec, device) for name, path in queries}
    # TorchScript specialises itself on its first two calls, and the answer to the first differs in rounding
    for n in (1, budget, 1, budget):
        with torch.no_grad():
            for query in spec.examples(n, device):
                models[type(query)](*query)
    return spec, models if methods else next(iter(models.values()))


def _call(frozen: torch.jit.ScriptModule, method: str, spec: Contract, device: torch.device) -> Call:
    """Return what is called with the tensors of a query."""
    if spec.kind.slopes:
        return partial(slope, frozen)
    alone = list(spec.kind.queries) == ["forward"]
    call: Call = packed(frozen) if alone and device.type == "cpu" else getattr(frozen, method)
    return call


@contextmanager
def torchscript() -> Iterator[None]:
    """Silence the warning that TorchScript is deprecated: TorchServe does not load torch.export."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.*deprecated", category=DeprecationWarning)
        yield
