"""What a run shows of itself, against samplers written out by hand and a Gaussian energy."""

import io
import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from genserve.data.pictures import ImageSet
from genserve.images import GAP, Pixels, to_pixels
from genserve.learning.previews import (
    ancestral,
    chained,
    consistent,
    diagnostics,
    sample_grid,
    write_energies,
)
from genserve.models.config import ModelConfig
from genserve.models.contrastive import ChainConfig
from genserve.sampling.noise import Streams
from genserve.sampling.schedules import karras

MEAN, STD = 0.3, 0.4
SIDE = 4


def config(
    family: str = "diffusion", classes: tuple[str, ...] = (), levels: tuple[float, float] = (0.01, 20.0)
) -> ModelConfig:
    low, high = levels
    return ModelConfig(
        family=family,
        energy="residual" if family == "energy" else "",
        shape=(1, SIDE, SIDE),
        classes=classes,
        mean=MEAN,
        std=STD,
        sigma_min=low,
        sigma_max=high,
        net={},
    )


class Gaussian(nn.Module):
    """E[x_0 | x] for x_0 ~ N(MEAN, STD**2)."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Parameter(torch.tensor(MEAN))

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        share = STD**2 / (STD**2 + sigma.view(-1, 1, 1, 1) ** 2)
        answer: Tensor = self.mean + share * (x - self.mean)
        return answer


class GaussianEnergy(Gaussian):
    """-log of the density of x_0 + sigma * eps, for the same x_0; its scale at any level."""

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        squares: Tensor = (x - self.mean).square().flatten(1).sum(1)
        return squares / (2 * (STD**2 + sigma**2))


class Shade(Gaussian):
    """Answers every query with the gray of the class."""

    def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
        return (y / 8 - 1).view(-1, 1, 1, 1).expand_as(x) + 0 * self.mean


def tiles(png: bytes, columns: int) -> Pixels:
    """Return the images of a sheet, row by row, (N, SIDE, SIDE)."""
    with Image.open(io.BytesIO(png)) as picture:
        scale = 64 // SIDE
        sheet = np.asarray(picture)[::scale, ::scale]
    step = SIDE + GAP
    assert (sheet.shape[1] + GAP) // step == columns
    rows = (sheet.shape[0] + GAP) // step
    corners = [(step * k, step * j) for k in range(rows) for j in range(columns)]
    return np.stack([sheet[top : top + SIDE, left : left + SIDE] for top, left in corners])


def blank(n: int) -> Tensor:
    return torch.zeros(n, 1, SIDE, SIDE)


def equal(png: bytes, x: Tensor) -> bool:
    """Whether a sheet of 8 columns shows these images, but for the rounding of a float."""
    return bool((np.abs(tiles(png, 8).astype(int) - to_pixels(x)[..., 0]) <= 1).all())


def ancestors(n: int, sigmas: list[float]) -> Tensor:
    """Return n images of DDPM, its posterior q(x_s | x_t, x_0) written out (Ho et al. 2020, eq. 7)."""
    noise, y = Streams(0, range(n)), torch.zeros(n, dtype=torch.long)
    x = sigmas[0] * noise(blank(n))
    for sigma, lower in pairwise(sigmas):
        x_0 = Gaussian()(x, torch.full((n,), sigma), y)
        ratio = (lower / sigma) ** 2
        x = ratio * x + (1 - ratio) * x_0
        if lower:
            x = x + lower * math.sqrt(1 - ratio) * noise(x)
    return x.detach()


@pytest.mark.parametrize(("family", "network"), [("diffusion", Gaussian()), ("energy", GaussianEnergy())])
def test_a_preview_is_ddpm_in_25_steps_of_a_denoiser_or_of_the_denoiser_in_an_energy(
    family: str, network: nn.Module
) -> None:
    model = config(family)
    expected = ancestors(64, karras(25, 0.01, 20.0).tolist())
    assert equal(sample_grid(network, model, ancestral(model)), expected)
    assert expected.std().item() == pytest.approx(STD, rel=0.2)  # of the Gaussian that it knows


def test_a_distilled_model_is_shown_at_its_own_levels() -> None:
    """Song et al. 2023, algorithm 1: answer, add fresh noise of the next level, answer."""
    noise, y, levels = Streams(0, range(64)), torch.zeros(64, dtype=torch.long), (16.0, 0.8, 0.1)
    x = blank(64)
    for sigma in levels:
        x = Gaussian()(x + sigma * noise(x), torch.full((64,), sigma), y)
    model = config()
    assert equal(sample_grid(Gaussian(), model, consistent(model, levels)), x)


def test_an_energy_without_levels_is_shown_where_its_training_chains_end() -> None:
    chains = ChainConfig(steps=1, step_size=0.3, noise_std=0.05, gradient_max=0.5, final_steps=12)
    noise = Streams(0, range(64))
    x = 2 * torch.special.ndtr(noise(blank(64))) - 1
    for _ in range(12):
        gradient = ((x - MEAN) / (STD**2 + 1)).clamp(-0.5, 0.5)
        x = (x - 0.3 * gradient + 0.05 * noise(x)).clamp(-1, 1)
    model = config("energy", levels=(1.0, 1.0))
    assert equal(sample_grid(GaussianEnergy(), model, chained(chains)), x)


@pytest.mark.parametrize(("n_classes", "columns"), [(3, 3), (10, 10), (12, 10)])
def test_every_class_has_a_column(n_classes: int, columns: int) -> None:
    model = config(classes=tuple(map(str, range(n_classes))))
    grays = tiles(sample_grid(Shade(), model, ancestral(model)), columns)[:, 0, 0].reshape(8, columns)
    expected = to_pixels((torch.arange(columns) / 8 - 1).view(-1, 1, 1, 1))[:, 0, 0, 0]
    assert (grays == expected).all()


def test_diagnostics_of_a_gaussian_are_its_own() -> None:
    """The acceptance of MALA in many dimensions is 2 Phi(-l**3 / 8), l**2 = 2 sigma**2 / variance here.

    Source: Roberts & Rosenthal 1998, theorem 1, of a Gaussian.
    """
    rng = torch.Generator().manual_seed(0)
    scale = math.sqrt(STD**2 + 0.25)
    data, negatives = (MEAN + scale * torch.randn(500, 1, 16, 16, generator=rng) for _ in range(2))
    result = diagnostics(GaussianEnergy(), 0.5, 0, data, negatives, rng)
    for name, x in (("data", data), ("negatives", negatives)):
        squares = (x - MEAN).square().flatten(1).sum(1)
        assert result[f"energy_{name}"] == pytest.approx((squares / (2 * scale**2)).mean().item(), rel=1e-4)
        assert result[f"gradient_{name}"] == pytest.approx(
            (squares.sqrt() / scale**2).mean().item(), rel=1e-4
        )
    noise = 256 * (1 / 3 + MEAN**2) / (2 * scale**2)  # of x uniform in -1 to 1
    assert result["energy_noise"] == pytest.approx(noise, rel=0.02)
    assert result["gap"] == pytest.approx(result["energy_negatives"] - result["energy_data"], abs=1e-4)
    length = math.sqrt(2 * 0.5**2) / scale
    assert result["acceptance"] == pytest.approx(math.erfc(length**3 / 8 / math.sqrt(2)), abs=0.02)


def test_energies_are_ranked_by_quantiles_of_the_first_images(tmp_path: Path) -> None:
    class Brightness(Gaussian):
        def forward(self, x: Tensor, sigma: Tensor, y: Tensor) -> Tensor:
            return x.flatten(1).sum(1) + 10 * sigma + 100 * y

    x = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).repeat(2, 1, 1, 1)
    images = ImageSet(x, torch.zeros(512, dtype=torch.long), ())
    write_energies(tmp_path, Brightness(), 0.5, 3, images, n=256)
    table = json.loads((tmp_path / "energies.json").read_text())
    assert table["sigma"] == 0.5
    expected = 305 + np.linspace(-1, 1, 1001)  # evenly, as the grays are
    np.testing.assert_allclose(table["quantiles"], expected, atol=1e-4)
