"""Show how a training run is doing: pictures that the model draws, and where its energies lie."""

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from genserve import images
from genserve.data.pictures import ImageSet
from genserve.drawing.local import draw, draw_once
from genserve.files import write_json
from genserve.images import normalise
from genserve.models.config import ModelConfig, OnceConfig
from genserve.models.contrastive import ChainConfig
from genserve.sampling.langevin import Energy, mala, slope
from genserve.sampling.samplers import level, sample
from genserve.sampling.schedules import Tuned
from genserve.sampling.settings import Setting


def ancestral(model: ModelConfig) -> Setting:
    """Return DDPM in 25 steps between the noise levels of a model."""
    return Setting(sampler="ddpm", steps=25, sigma_min=model.sigma_min, sigma_max=model.sigma_max)


def consistent(model: ModelConfig, sigmas: tuple[float, ...]) -> Setting:
    """Return the setting of a distilled model at given noise levels, which fall and end above 0."""
    tuned = Tuned(sampler="consistency", sigmas=sigmas)
    return Setting(
        sampler=tuned.sampler,
        steps=tuned.steps,
        schedule="tuned",
        sigma_min=model.sigma_min,
        sigma_max=model.sigma_max,
        tuned=(tuned,),
    )


def chained(chains: ChainConfig) -> Setting:
    """Return the setting of an energy without noise levels: Langevin chains as in training, from noise."""
    return Setting(
        sampler="langevin",
        steps=chains.final_steps,
        sigma_min=1.0,
        sigma_max=1.0,
        step_size=chains.step_size,
        noise=chains.noise_std,
        gradient_max=chains.gradient_max,
    )


def sample_grid(network: nn.Module, model: ModelConfig, setting: Setting) -> bytes:
    """Return a PNG of 8 images per class, a column each (64 without classes), the same noise every time.

    Of more than 10 classes the first 10 are shown.

    Args:
        network: a denoiser or an energy, as `model` says.

    Raises:
        ValueError: an image holds NaN or infinity.
    """
    y, columns = _grid_classes(len(model.classes))
    pixels = draw(network, model, setting, y, batch_size=len(y)).permute(0, 2, 3, 1).numpy()
    return _grid(pixels, columns)


def one_step_grid(network: nn.Module, model: OnceConfig) -> bytes:
    """Return a PNG as `sample_grid` does, of a network that draws an image from noise in one evaluation.

    Raises:
        ValueError: an image holds NaN or infinity.
    """
    y, columns = _grid_classes(len(model.classes))
    y = y.to(next(network.parameters()).device)
    pixels = draw_once(network, model.z_dim, y, lambda noise: noise, batch_size=len(y))
    return _grid(pixels.permute(0, 2, 3, 1).numpy(), columns)


def _grid_classes(n_classes: int) -> tuple[Tensor, int]:
    """Return the classes of a grid's images, row by row, and the number of its columns."""
    columns = min(n_classes, 10) or 8
    return torch.arange(8 * columns) % columns * (n_classes > 0), columns


def _grid(pixels: images.Pixels, columns: int) -> bytes:
    """Return pictures (B, H, W, C) as a PNG, small ones enlarged."""
    return images.png(images.enlarge(images.grid(pixels, columns), max(1, 64 // pixels.shape[1])))


@torch.no_grad()
def diagnostics(
    energy: Energy, sigma: float, y: int, x_data: Tensor, x_negative: Tensor, rng: torch.Generator
) -> dict[str, float]:
    """Return mean energies and gradients of data, negatives and noise, their gap, and chain acceptance.

    The gap is between negatives and data. The acceptance is the share of steps from the negatives that a
    Metropolis test takes, of the length that suits a chain of this many dimensions.

    Args:
        sigma: the noise level at which the energy is read.
        y: the class of all images.
        x_data, x_negative: (B, C, H, W) in [-1, 1].
        rng: of the noise.

    Source: Roberts & Rosenthal 1998, "Optimal scaling of discrete approximations to Langevin diffusions".
    """
    classes = torch.full((len(x_data),), y, device=x_data.device)
    x_noise = torch.empty_like(x_data).uniform_(-1, 1, generator=rng)
    result = {}
    for name, x in (("data", x_data), ("negatives", x_negative), ("noise", x_noise)):
        answer = slope(energy, x, level(sigma, x), classes)
        result[f"energy_{name}"] = answer.energy.mean().item()
        result[f"gradient_{name}"] = answer.gradient.flatten(1).norm(dim=1).mean().item()
    result["gap"] = result["energy_negatives"] - result["energy_data"]

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=rng, device=x.device)

    taken: list[Tensor] = []
    size = sigma**2 * math.prod(x_data.shape[1:]) ** (-1 / 3)
    chain = mala(x_negative, sigma, classes, steps=4, step_size=size, noise=noise, accepted=taken.append)
    sample(chain, partial(slope, energy))
    result["acceptance"] = torch.stack(taken).float().mean().item()
    return {key: round(value, 5) for key, value in result.items()}


@torch.no_grad()
def write_energies(
    directory: Path, energy: nn.Module, sigma: float, no_class: int, dataset: ImageSet, n: int = 10_000
) -> None:
    """Write energies.json: quantiles of the energies of the first n training images, to rank others by.

    Raises:
        OSError: the file cannot be written.
    """
    device = next(energy.parameters()).device
    parts = []
    for pixels in dataset.x[:n].split(250):
        x = normalise(pixels.to(device))
        parts.append(energy(x, level(sigma, x), torch.full((len(x),), no_class, device=device)).cpu())
    quantiles = torch.quantile(torch.cat(parts).double(), torch.linspace(0, 1, 1001, dtype=torch.float64))
    table = {"sigma": sigma, "quantiles": [round(q, 4) for q in quantiles.tolist()]}
    write_json(directory / "energies.json", table)
