"""Draw many images of one model, batch by batch, with classes in fair shares."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from torch import Tensor, nn

from genserve import images
from genserve.backends import INT8, OPENVINO, TORCHSCRIPT
from genserve.compiling.convert import compile_run
from genserve.models.config import ModelConfig
from genserve.progress import Chunks
from genserve.runs.contract import Spec
from genserve.runs.export import export
from genserve.runs.loading import load_served
from genserve.sampling.engine import Call
from genserve.sampling.langevin import slope
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample
from genserve.sampling.settings import Setting

BUDGET = 32  # a server's own; OpenVINO compiles the sizes up to it, and their bits are compared among them


def fair_classes(n: int, counts: Tensor) -> Tensor:
    """Return n classes, (n,), in the proportion of counts, (n_classes,); the class of image k ignores n.

    Any stretch of the multiples of the golden ratio, modulo 1, is spread evenly (equidistribution, Weyl
    1916).
    """
    u = torch.arange(1, n + 1, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
    shares = counts.double().cumsum(0) / counts.sum()
    return torch.searchsorted(shares, u, right=True).clamp(max=len(counts) - 1)


def draw(
    model: nn.Module | Call,
    config: ModelConfig | Spec,
    setting: Setting,
    y: Tensor,
    seed: int = 0,
    batch_size: int = 250,
    chunks: Chunks = iter,
) -> Tensor:
    """Return images 0 to N - 1 of a seed, (N, C, H, W) uint8, as a server would draw and round them.

    Args:
        model: a denoiser or an energy, on the device and in the precision to compute in; or the model of
            `served_model`, on the device of y.
        config: the model's family, shape and classes.
        y: (N,), the classes; n_classes means "no class".
        batch_size: images that are drawn together.
        chunks: shows progress over the batches.
    """
    device, evaluate, energy = y.device, model, config.kind.slopes
    if isinstance(model, nn.Module) and not isinstance(model, torch.jit.ScriptModule):
        device = next(model.parameters()).device
        evaluate = partial(slope, model) if energy else model
    parts = []
    for start in chunks(range(0, len(y), batch_size)):
        y_part = y[start : start + batch_size].to(device)
        noise = Streams(seed, range(start, start + len(y_part)))
        like = torch.empty(len(y_part), *config.shape, device=device)
        sampler = setting.build(noise, like, y_part, energy=energy, no_class=len(config.classes))
        x_0 = sample(sampler, evaluate)
        parts.append(torch.from_numpy(images.to_pixels(x_0)).permute(0, 3, 1, 2))
    return torch.cat(parts)


@torch.no_grad()
def draw_once(
    model: nn.Module,
    z_dim: int,
    y: Tensor,
    change: Callable[[Tensor], Tensor],
    seed: int = 0,
    batch_size: int = 250,
    chunks: Chunks = iter,
) -> Tensor:
    """Return images 0 to N - 1 of a seed, (N, C, H, W) uint8, of a model that draws in one evaluation.

    Args:
        model: the network of a `OnceConfig`, on the device of y.
        z_dim: of the noise.
        y: (N,), the classes; 0 for a model without classes.
        change: made to the noise.
        batch_size: images that are drawn together.
        chunks: shows progress over the batches.
    """
    parts = []
    for start in chunks(range(0, len(y), batch_size)):
        y_part = y[start : start + batch_size]
        like = torch.empty(len(y_part), z_dim, device=y.device)
        x = model(change(Streams(seed, range(start, start + len(y_part)))(like)), y_part)
        parts.append(torch.from_numpy(images.to_pixels(x)).permute(0, 3, 1, 2))
    return torch.cat(parts)


def served_model(
    directory: Path, device: torch.device, precision: str = "fp32", backend: str = TORCHSCRIPT
) -> tuple[Spec, Call]:
    """Return contract and model of a run exactly as a server loads them; arguments as `load_served`.

    Raises:
        FileNotFoundError, ValueError: as `export`.
        ModuleNotFoundError, ValueError: as `compile_run`, or OpenVINO cannot run here what it has compiled.
    """
    with TemporaryDirectory() as folder:
        export(directory, Path(folder))
        if backend == OPENVINO:
            compile_run(directory, Path(folder), int8=precision == INT8)
        served = load_served(Path(folder), device, backend, precision, BUDGET)
        if served.backend != backend:
            raise ValueError(f"{backend} cannot run {directory} here: the log says why")
        return cast(Spec, served.spec), cast(Call, served.model)
