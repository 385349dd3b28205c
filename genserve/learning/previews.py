"""What a training run shows of itself: pictures that it draws, and how its energies lie."""

import math
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from genserve import images
from genserve.data.pictures import ImageSet
from genserve.files import write_json
from genserve.images import normalise
from genserve.models.config import ModelConfig
from genserve.models.contrastive import ChainConfig, walk
from genserve.sampling.langevin import Energy, mala, slope
from genserve.sampling.noise import Streams, uniform
from genserve.sampling.samplers import Model, consistency, ddpm, level, sample
from genserve.sampling.schedules import karras


@torch.no_grad()
def sample_grid(
    denoiser: Model, model: ModelConfig, device: torch.device, few: tuple[float, ...] = ()
) -> bytes:
    """Return a PNG of 8 images a class, a column each (64 without classes), the same noise every time.

    Args:
        few: noise levels of a consistency model, falling; DDPM in 25 steps where there are none.
    """
    n_classes = len(model.classes)
    columns = min(n_classes, 10) or 8
    y = torch.arange(8 * columns, device=device) % columns * (n_classes > 0)
    noise = Streams(0, range(len(y)))
    sigmas = torch.tensor([*few, 0.0]) if few else karras(25, model.sigma_min, model.sigma_max)
    x_t = sigmas[0].item() * noise(torch.empty(len(y), *model.shape, device=device))
    sampler = (consistency if few else ddpm)(x_t, sigmas, y, noise=noise)
    return _sheet(sample(sampler, denoiser), columns)


def chain_grid(energy: Energy, model: ModelConfig, chains: ChainConfig, device: torch.device) -> bytes:
    """Return a PNG of where 64 chains from uniform noise end, the same noise every time."""
    noise = Streams(0, range(64))
    start = uniform(noise, torch.empty(64, *model.shape, device=device))
    return _sheet(walk(energy, start, chains, chains.final_steps, noise), 8)


@torch.no_grad()
def diagnostics(
    energy: Energy, sigma: float, y: int, x_data: Tensor, x_negative: Tensor, rng: torch.Generator
) -> dict[str, float]:
    """Return mean energies and gradients of data, negatives and noise, their gap, and chain acceptance.

    The gap is between negatives and data. The acceptance is the share of steps from the negatives that a
    Metropolis test takes, of the length that suits a chain of so many dimensions.

    Args:
        y: the class that all are asked for.

    Source: Roberts & Rosenthal 1998, "Optimal scaling of discrete approximations to Langevin diffusions".
    """
    classes = torch.full((len(x_data),), y, device=x_data.device)
    x_noise = torch.empty_like(x_data).uniform_(-1, 1, generator=rng)
    found = {}
    for name, x in (("data", x_data), ("negatives", x_negative), ("noise", x_noise)):
        seen = slope(energy, x, level(sigma, x), classes)
        found[f"energy_{name}"] = seen.energy.mean().item()
        found[f"gradient_{name}"] = seen.gradient.flatten(1).norm(dim=1).mean().item()
    found["gap"] = found["energy_negatives"] - found["energy_data"]

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=rng, device=x.device)

    taken: list[Tensor] = []
    size = sigma**2 * math.prod(x_data.shape[1:]) ** (-1 / 3)
    chain = mala(x_negative, sigma, classes, steps=4, step_size=size, noise=noise, accepted=taken.append)
    sample(chain, partial(slope, energy))
    found["acceptance"] = torch.stack(taken).float().mean().item()
    return {key: round(value, 5) for key, value in found.items()}


@torch.no_grad()
def write_energies(
    directory: Path, energy: nn.Module, sigma: float, no_class: int, dataset: ImageSet, n: int = 10_000
) -> None:
    """Write energies.json: quantiles of the energies of the first n training images, to rank others by."""
    device = next(energy.parameters()).device
    found = []
    for part in dataset.x[:n].split(250):
        x = normalise(part.to(device))
        found.append(energy(x, level(sigma, x), torch.full((len(x),), no_class, device=device)).cpu())
    quantiles = torch.quantile(torch.cat(found).double(), torch.linspace(0, 1, 1001, dtype=torch.float64))
    read = {"sigma": sigma, "quantiles": [round(q, 4) for q in quantiles.tolist()]}
    write_json(directory / "energies.json", read)


def _sheet(x: Tensor, columns: int) -> bytes:
    pixels = images.grid(images.to_pixels(x), columns)
    return images.png(images.enlarge(pixels, max(1, 64 // x.shape[2])))
