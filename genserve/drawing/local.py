"""Draw many images of one model, batch by batch, with classes in fair shares."""

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from genserve import images
from genserve.models.config import ModelConfig
from genserve.progress import Chunks
from genserve.runs.contract import Spec
from genserve.runs.export import export
from genserve.runs.loading import load_model
from genserve.sampling.engine import Evaluate
from genserve.sampling.langevin import slope
from genserve.sampling.noise import Streams
from genserve.sampling.samplers import sample
from genserve.sampling.settings import Setting


def fair_classes(n: int, counts: Tensor) -> Tensor:
    """Return n classes, (n,), in the proportion of counts, (n_classes,); the class of image k ignores n.

    Any stretch of the multiples of the golden ratio, modulo 1, is spread evenly (equidistribution, Weyl
    1916).
    """
    u = torch.arange(1, n + 1, dtype=torch.float64) * ((5**0.5 - 1) / 2) % 1
    shares = counts.double().cumsum(0) / counts.sum()
    return torch.searchsorted(shares, u, right=True).clamp(max=len(counts) - 1)


def draw(
    model: nn.Module | Evaluate,
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


def served_model(
    directory: Path, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Spec, Evaluate]:
    """Return contract and model of a run exactly as a server loads them; arguments as `load_model`.

    Raises:
        FileNotFoundError, ValueError: as `export`.
    """
    with TemporaryDirectory() as folder:
        export(directory, Path(folder))
        return load_model(Path(folder), device, dtype)
